"""The shipped detector, its letterbox, and the teacher's labels."""

import json

import cv2
import numpy as np
import pytest

from qanet.benchmarks.lab.detector_labels import frame_range, label, main
from qanet.bundle import open_bundle
from qanet.errors import QanetError
from qanet.geometry import letterboxed
from qanet.runtime.detectors.base import NOBODY, Detections
from qanet.runtime.detectors.open import DEFAULT, PersonDetector, detects, names_a_bundle


def test_what_ships_is_small_and_whole():
    bundle = open_bundle(DEFAULT)
    bundle.verify()
    assert detects(bundle) and not detects(open_bundle("ccp13-lite0"))
    assert sum(file.stat().st_size for file in bundle.path.iterdir()) < 6e6


def test_it_finds_the_walkers_of_a_clip(shared):
    """Frames behind those it was trained on: about as many people as the film shows, sure and upright."""
    detector = PersonDetector(threads=1)
    capture = cv2.VideoCapture(str(shared / "data" / "video" / "vtest.avi"))
    capture.set(cv2.CAP_PROP_POS_FRAMES, 600)
    read, image = capture.read()
    assert read
    found = detector.detect(image)
    assert 3 <= len(found) <= 9 and found.scores[0] > 0.5 and (found.scores >= detector.score_threshold).all()
    sides = found.boxes[:, 2:] - found.boxes[:, :2]
    assert (sides[:, 1] > sides[:, 0]).mean() > 0.7


@pytest.mark.parametrize(
    ("hw", "ratio", "drawn"),
    [((64, 96), 1.0, (64, 96)), ((128, 128), 0.5, (64, 64)), ((32, 192), 0.5, (16, 96)), ((1, 1), 64.0, (64, 64))],
)
def test_letterbox(hw, ratio, drawn):
    canvas, got = letterboxed(np.full((*hw, 3), 7, np.uint8), (64, 96))
    assert got == ratio and canvas.shape == (64, 96, 3)
    assert (canvas[: drawn[0], : drawn[1]] == 7).all()
    assert (canvas[drawn[0] :] == 114).all() and (canvas[:, drawn[1] :] == 114).all()


def test_shrinking_averages():
    stripes = np.zeros((128, 192, 3), np.uint8)
    stripes[:, ::2] = 200
    assert (letterboxed(stripes, (64, 96))[0] == 100).all()


def test_names_of_bundles_and_of_files(tmp_path):
    (tmp_path / "model").write_bytes(b"")
    for text, expected in (
        ("person-lite0", True),
        ("mine.qanet", True),
        ("mine.qanet/", True),
        (str(tmp_path), True),
        ("yolox_nano.onnx", False),
        (str(tmp_path / "model"), False),
    ):
        assert names_a_bundle(text) is expected, text


class Teacher:
    """Sees a person wherever an image is bright."""

    name = "teacher"

    def detect(self, image, frame=0):
        if image.mean() < 100:
            return NOBODY
        return Detections(np.array([[1, 2, 11, 22.5]], np.float32), np.array([0.75], np.float32))


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, grey in enumerate((200, 20, 200)):
        cv2.imwrite(str(folder / f"{number}.png"), np.full((40, 60, 3), grey, np.uint8))
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


def test_labels_of_pictures_are_written_for_training(pictures, tmp_path, capsys):
    from qanet.train.detection.photographs import Album, read_photographs

    done = label(str(pictures), Teacher(), tmp_path / "out" / "labelled" / "mine", longest_px=30)
    assert (done["images"], done["boxes"]) == (3, 2) and "left out" in capsys.readouterr().err
    album = Album(read_photographs(tmp_path / "out"))
    assert album[0][0].shape == (20, 30, 3)
    assert [len(album[k][1]) for k in range(3)] == [1, 0, 1] and album[0][1].tolist() == [[1, 2, 11, 22.5, 0.75]]
    document = json.loads((tmp_path / "out" / "labelled" / "mine" / "persons.json").read_text())
    assert document["info"]["description"] == "pictures, people by teacher"


def test_photographs_without_people_are_kept_alone(pictures, tmp_path):
    done = label(str(pictures), Teacher(), tmp_path / "out", nobody=True)
    assert done["images"] == 1 and [p.name for p in (tmp_path / "out").rglob("*") if p.is_file()] == ["00001-1.jpg"]
    for name in ("1.png", "broken.png"):
        (pictures / name).unlink()
    with pytest.raises(QanetError, match="nothing of .* was kept"):
        label(str(pictures), Teacher(), tmp_path / "none", nobody=True)


def test_a_part_of_a_video_is_labelled(make_clip, tmp_path):
    done = label(str(make_clip(8)), Teacher(), tmp_path / "out", frames=frame_range("2:7:2"))
    assert done["images"] == 3
    assert sorted(p.name for p in (tmp_path / "out" / "images").iterdir()) == ["000002.jpg", "000004.jpg", "000006.jpg"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--frames", "a:b"], "expected FIRST:END"),
        (["--frames", "3"], "expected FIRST:END"),
        (["--frames", "0:9:0"], "expected FIRST:END"),
        (["--score", "0"], "bad --score or --longest"),
        (["--detector", "nothing.onnx"], "no detector at"),
    ],
)
def test_bad_arguments_are_named(arguments, message, tmp_path):
    given = ["clip.avi", "--output", str(tmp_path / "out"), "--detector", "teacher.onnx", *arguments]
    with pytest.raises(QanetError, match=message):
        main(given)
