"""What the sinks of a stream get to see: chosen parts alone, nobody's face, paint on nothing but people."""

import json

import cv2
import numpy as np
import pytest

from qanet.__main__ import main
from qanet.errors import QanetError
from qanet.labels import CCP13, CIHP20
from qanet.results import People, Person
from qanet.runtime.video.frame import Frame
from qanet.runtime.video.outputs import FilteredSink, only_parts, part_ids
from qanet.runtime.video.privacy import Privacy


class Kept:
    """A sink that keeps what it is given."""

    def __init__(self):
        self.got, self.entered = [], 0

    def __enter__(self):
        self.entered += 1
        return self

    def __exit__(self, *_):
        self.entered -= 1

    def write(self, frame, result):
        self.got.append((frame, result))


@pytest.fixture
def result():
    """Somebody of ccp13 with hair (2), skin (10) and clothes (4) on noise."""
    labels = np.zeros((100, 60), np.uint8)
    labels[10:20, 20:40], labels[20:30, 20:40], labels[30:90, 15:45] = 2, 10, 4
    scores = np.linspace(0.2, 0.9, 12, dtype=np.float32)
    one = Person(
        np.array([15, 10, 45, 90], np.float32), 0.9, 0.8, 0.7, 0.8, scores, scores / 2, labels, (0, 0, 60, 100), 3
    )
    return People(np.random.default_rng(1).integers(0, 256, (100, 60, 3), np.uint8), CCP13, [one])


def test_only_keeps_the_parts_named_in_labels_and_json(result):
    shown = only_parts(result, part_ids(("skin", "hair"), CCP13))
    assert sorted(np.unique(shown.labels).tolist()) == [0, 2, 10]
    (told,) = shown.to_json()["people"]
    (whole,) = result.to_json()["people"]
    assert told["parts"] == [part for part in whole["parts"] if part["class"] in ("hair", "skin")]
    assert {k: v for k, v in told.items() if k != "parts"} == {k: v for k, v in whole.items() if k != "parts"}
    assert np.flatnonzero(shown[0].part_scores).tolist() == [1, 9] and (result.labels == 4).any()


@pytest.mark.parametrize(
    ("labels", "name", "message"),
    [
        (CCP13, "skn", "no part 'skn' in ccp13, did you mean 'skin'"),
        (CIHP20, "left-sock", "did you mean 'left-shoe'"),
        (CCP13, "background", "no part 'background' in ccp13"),
        (CCP13, "xyzzy", "no part 'xyzzy' in ccp13 .expected hat, hair, glasses"),
    ],
)
def test_a_part_that_is_not_there_is_told_with_the_nearest_name(labels, name, message):
    with pytest.raises(QanetError, match=message):
        part_ids((name,), labels)


def test_the_background_is_kept_to_the_pixel(result):
    kept = Kept()
    with FilteredSink([kept], keep_background=True) as view:
        view.write(Frame(0, "0", result.image), result)
    drawn = kept.got[0][1].draw()
    nobody = result.labels == 0
    assert np.array_equal(drawn[nobody], result.image[nobody]) and (drawn[~nobody] != result.image[~nobody]).any()
    assert not np.array_equal(result.draw()[nobody], result.image[nobody])  # boxes and legend, where they are wanted


def test_all_sinks_get_the_same_hidden_picture_and_the_frame_has_no_other(result):
    first, second = Kept(), Kept()
    with FilteredSink([first, second], Privacy("face"), only=(4,)) as view:
        assert first.entered == second.entered == 1
        view.write(Frame(0, "0", result.image), result)
    assert first.entered == second.entered == 0
    (frame, shown), other = first.got[0], second.got[0][1]
    assert shown is other and frame.image is shown.image
    # the face is hidden by its own labels, though --only shows others
    assert (shown.image != result.image).any(2)[20:30, 20:40].mean() > 0.99
    assert set(np.unique(shown.labels).tolist()) == {0, 4}


def test_a_sink_that_cannot_be_entered_closes_those_before_it():
    class Broken(Kept):
        def __enter__(self):
            raise QanetError("no room")

    before = Kept()
    with pytest.raises(QanetError, match="no room"), FilteredSink([before, Broken()]):
        pass
    assert before.entered == 0


def parse(*arguments):
    return main(["parse", *map(str, arguments)])


@pytest.fixture
def common(shared_tiny_bundle, boxes_file):
    return ["--model", shared_tiny_bundle, "--boxes", boxes_file, "--threads", "1", "--quiet"]


def test_blur_reaches_pictures_and_leaves_json_alone(make_clip, common, tmp_path, capfd):
    clip = make_clip(2)
    for name, options in {"plain": [], "hidden": ["--blur", "person"]}.items():
        background = ["--keep-background"]  # no boxes and legend over what is compared
        assert (
            parse(clip, tmp_path / name, "--results", tmp_path / f"{name}.jsonl", *options, *background, *common) == 0
        )
    capfd.readouterr()
    assert (tmp_path / "plain.jsonl").read_bytes() == (tmp_path / "hidden.jsonl").read_bytes()
    plain, hidden = (cv2.imread(str(tmp_path / name / "000000.png")) for name in ("plain", "hidden"))
    changed = np.abs(plain.astype(int) - hidden).max(2) > 8
    assert changed[22:98, 22:58].mean() > 0.5 and changed[32:108, 102:138].mean() > 0.5 and not changed[:5].any()


def test_only_reaches_json_and_label_maps(make_clip, common, tmp_path, capfd):
    where = ["--results", tmp_path / "o.jsonl", "--labels", tmp_path / "labels"]
    assert parse(make_clip(1), *where, "--only", "hair", *common) == 0
    capfd.readouterr()
    record = json.loads((tmp_path / "o.jsonl").read_text())
    assert [[part["class"] for part in person["parts"]] for person in record["people"]] == [["hair"], ["hair"]]
    assert set(np.unique(cv2.imread(str(tmp_path / "labels" / "000000.png"))).tolist()) == {
        0,
        *CCP13.colours_rgb[2].tolist(),
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--only", "har"], "no part 'har' in ccp13, did you mean 'hair'?"),
        (["--only", "hair,"], "argument --only: expected parts separated by commas"),
        (["--blur", "cats"], "argument --blur: invalid choice: 'cats'"),
        (
            ["--serve", "here"],
            "argument --serve: not an address to serve on (expected HOST:PORT such as 127.0.0.1:8080",
        ),
        (["--serve", "127.0.0.1:99999"], "not an address to serve on"),
    ],
)
def test_a_mistake_is_one_line(make_clip, common, capfd, options, message):
    assert parse(make_clip(1), *options, *common) == 2
    captured = capfd.readouterr()
    assert captured.out == "" and message in captured.err and captured.err.count("\n") == 1


def test_every_frame_is_detected_on_where_faces_are_hidden():
    from qanet.runtime.cli.command import _detect_every
    from qanet.runtime.cli.options import arguments

    def cadence(*options):
        return _detect_every(arguments().parse_args(["a.mp4", *options]), True)

    assert cadence("--blur", "face") == 1 and cadence() != 1
    assert cadence("--blur", "face", "--detect-every", "5") == 5
    assert cadence("--blur", "person", "--detect-every", "auto") is None
