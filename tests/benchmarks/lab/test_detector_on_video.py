"""detector_on_video: its arithmetic on detectors whose answers are known, and bad input."""

import json

import numpy as np
import pytest

from qanet.benchmarks.lab import detector_on_video
from qanet.benchmarks.lab.detector_on_video import Compared, Question, compare, report, squares_of
from qanet.bundle import create
from qanet.errors import QanetError
from qanet.runtime.detectors.base import NOBODY, Detections


class Told:
    """Gives what it was told, frame by frame."""

    def __init__(self, name, *frames):
        self.name, self.frames = name, frames

    def detect(self, image, frame=0):
        rows = self.frames[frame]
        if not rows:
            return NOBODY
        table = np.array(rows, np.float32)
        return Detections(table[:, :4], table[:, 4])


TALL, SMALL, FAINT = [0, 0, 30, 80, 0.9], [50, 0, 70, 40, 0.9], [100, 0, 130, 90, 0.3]
FRAMES = [np.zeros((100, 200, 3), np.uint8)] * 2
TEACHER = Told("teacher", [TALL, SMALL, FAINT], [TALL])


@pytest.mark.parametrize(
    ("second", "strict", "fair", "usual"),
    [
        ([TALL], (1.0, 0.5), (1.0, 0.5), (1.0, 0.0)),  # all found, nothing false
        ([], (0.5, 0.5), (0.5, 0.3), (0.5, 0.0)),  # what is neutral does not stop the threshold
        ([[*TALL[:4], 0.2]], (0.5, 0.5), (1.0, 0.2), (0.5, 0.0)),
    ],
)
def test_recall_of_known_answers(second, strict, fair, usual):
    """The first frame's detector also sees the small and the faint one, with scores between."""
    first = [[*TALL[:4], 0.5]] + ([[*SMALL[:4], 0.3], [*FAINT[:4], 0.3]] if second != [TALL] else [])
    detector = Told("detector", first, [[*TALL[:4], 0.5]] if second == [TALL] else second)
    compared, times = compare(FRAMES, detector, TEACHER)
    got = report(compared, times, Question(), threshold=0.35)
    assert got["frames"] == 2 and got["teacher_boxes"] == 2
    assert (got["strict"]["recall"], got["strict"]["threshold"]) == pytest.approx(strict)
    assert (got["fair"]["recall"], got["fair"]["threshold"]) == pytest.approx(fair)
    assert (got["usual"]["recall"], got["usual"]["false_per_image"]) == usual


def test_what_the_teacher_sees_closer_is_neither_right_nor_false():
    """A detector that finds somebody in the second frame whom the teacher only sees in a part of it."""
    far = [150, 10, 170, 60]

    class Near(Told):
        def detect(self, image, frame=0):
            if image.shape[1] == 200:
                return super().detect(image, frame)
            x = int(image[0, 0, 0])  # pixels tell their column
            box = np.array([far], np.float32) - np.array([x, 0, x, 0])
            inside = x <= far[0] and far[2] <= x + image.shape[1] and image.shape[0] == 100
            return Detections(box, np.array([0.9], np.float32)) if frame == 1 and inside else NOBODY

    frames = [np.broadcast_to(np.arange(200, dtype=np.uint8)[None, :, None], (100, 200, 3))] * 2
    detector = Told("d", [[*TALL[:4], 0.5]], [[*far, 0.9], [*TALL[:4], 0.5]])
    compared, times = compare(frames, detector, Near("teacher", [TALL], [TALL]), closer=True)
    got = report(compared, times, Question(), 0.35)
    assert (got["strict"]["recall"], got["fair"]["recall"], got["closer"]["recall"]) == (0, 0, 1)
    assert "closer" not in report(compare(frames, detector, TEACHER)[0], times, Question(), 0.35)


@pytest.mark.parametrize(
    ("person", "other", "strict", "fair"),
    [(0.9, 0.6, 1.0, 1.0), (0.6, 0.9, 0.0, 0.0)],  # surer of whom it knows, or of whom it only sees there
)
def test_the_teacher_in_the_parts_is_counted_like_a_detector(person, other, strict, fair):
    def told(*rows):
        table = np.array(rows, np.float32)
        return Detections(table[:, :4], table[:, 4])

    taught, near = told(TALL), told([*TALL[:4], person], [140, 0, 170, 80, other])
    got = report([Compared(taught, taught, near)] * 2, [1.0], Question(), 0.35)
    assert got["strict"]["recall"] == 1
    assert (got["teacher_strict"]["recall"], got["teacher_fair"]["recall"]) == (strict, fair)
    # the detector finds one of the two whom the teacher sees in either look, and the other's box counts once
    assert (got["thorough"]["recall"], got["thorough"]["true_boxes"]) == (0.5, 4)


def test_squares_cover_a_frame_and_overlap():
    for hw in ((100, 200), (200, 100), (64, 64), (7, 1000)):
        seen = np.zeros(hw, int)
        for x, y, side in squares_of(hw):
            assert 0 <= x <= hw[1] - side and 0 <= y <= hw[0] - side
            seen[y : y + side, x : x + side] += 1
        assert seen.min() >= 2  # once by each size


def test_height_score_and_overlap_are_as_asked():
    compared, times = compare(FRAMES[:1], Told("d", [[0, 0, 30, 70, 0.5]]), TEACHER)
    recalls = {
        question: report(compared, times, question, 0.35)["strict"]["recall"]
        for question in (Question(iou=0.8), Question(iou=0.9), Question(least_height_px=20), Question(least_score=0.2))
    }
    assert list(recalls.values()) == pytest.approx([1, 0, 1 / 2, 1 / 2])


def test_no_frames_is_an_error():
    with pytest.raises(QanetError, match="the video has no frame"):
        compare([], TEACHER, TEACHER)


def test_the_command_takes_the_part_it_is_told_and_saves(make_clip, tmp_path, monkeypatch, capsys):
    seen = []

    class Always:
        name = "always"

        def __init__(self, *_, **__):
            pass

        def detect(self, image, frame=0):
            seen.append(int(image[60, :, 0].argmax()))
            return Detections(np.array([TALL[:4]], np.float32), np.array([0.9], np.float32))

    monkeypatch.setattr(detector_on_video, "OnnxDetector", Always)
    monkeypatch.setattr(detector_on_video, "PersonDetector", Always)
    bundle = create(tmp_path / "mine.qanet", labels="personbox1", input_hw=[64, 96])
    bundle.save()
    arguments = [str(bundle.path), "--video", str(make_clip(9)), "--teacher", "t.onnx", "--from", "0.667", "--json"]
    assert detector_on_video.main(arguments) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["frames"] == 3 and document["strict"]["recall"] == 1
    assert detector_on_video.main([*arguments, "--every", "2", "--precision", "int8", "--save"]) == 0
    saved = json.loads((bundle.path / "manifest.json").read_text())["accuracy"]["int8"]
    assert saved["clip.avi 0.667-1"] == {
        "frames": 2,
        "teacher": "always",
        "teacher_boxes": 2,
        "recall_strict": 1.0,
        "recall_fair": 1.0,
        "false_per_frame": 0.1,
    }
    with pytest.raises(QanetError, match="this result cannot be saved"):
        detector_on_video.main([*arguments, "--save"])
    assert len(seen) > 0


@pytest.mark.parametrize("part", [["--from", "0.5", "--to", "0.5"], ["--from", "-1"], ["--every", "0"]])
def test_bad_parts_are_named(part):
    with pytest.raises(QanetError, match="bad part of the video"):
        detector_on_video.main(["person-lite0", "--video", "clip.avi", "--teacher", "t.onnx", *part])
