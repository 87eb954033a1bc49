"""A teacher's doubts in the scores of labelled images."""

import json

import numpy as np
import pytest
from person_cases import write_labelled

from qanet.errors import QanetError
from qanet.runtime.detectors.base import NOBODY, Detections
from qanet.runtime.detectors.doubt import best_scores, doubt, main


class Teacher:
    """Sees the person of the first image well, that of the second not at all, and somebody else in the third."""

    name = "teacher"

    def __init__(self):
        self.asked = 0

    def detect(self, image, frame=0):
        self.asked += 1
        if frame == 1:
            return NOBODY
        boxes = [[11, 20, 36, 80], [10, 20, 35, 70]] if frame == 0 else [[90, 0, 120, 30]]
        return Detections(np.array(boxes, np.float32), np.array([0.6, 0.8][: len(boxes)], np.float32))


def scores_of(folder):
    return [entry["score"] for entry in json.loads((folder / "train.json").read_text())["annotations"]]


def test_scores_become_the_mean_and_twice_is_as_once(tmp_path):
    folder = write_labelled(tmp_path / "frames", count=3)
    done = doubt(folder, Teacher())
    assert scores_of(folder) == pytest.approx([(0.9 + 0.8) / 2, 0.45, 0.45])
    assert (done["images"], done["people"], done["seen_by_teacher"]) == (3, 3, 1)
    assert doubt(folder, Teacher()) == done and scores_of(folder) == pytest.approx([0.85, 0.45, 0.45])


def test_what_is_neither_person_nor_background_stays_so(tmp_path):
    folder = write_labelled(tmp_path / "frames", count=2)
    document = json.loads((folder / "train.json").read_text())
    document["annotations"][0]["score"] = -1.0
    del document["annotations"][1]  # nobody in the second image: the teacher is not asked
    (folder / "train.json").write_text(json.dumps(document))
    teacher = Teacher()
    assert doubt(folder, teacher)["people"] == 0 and scores_of(folder) == [-1.0] and teacher.asked == 1


def test_the_best_of_the_boxes_on_a_person_counts():
    boxes = np.array([[0, 0, 10, 10], [50, 50, 60, 60]], np.float32)
    found = np.array([[0, 0, 10, 9], [0, 0, 9, 10], [0, 0, 10, 4], [100, 0, 110, 10]], np.float32)
    assert best_scores(boxes, found, np.array([0.3, 0.5, 0.9, 1.0], np.float32)).tolist() == [0.5, 0.0]
    assert best_scores(boxes, found[:0], np.zeros(0, np.float32)).tolist() == [0, 0]


@pytest.mark.parametrize(
    "text, message",
    [(None, "no train.json in"), ("{", "is not a file of labels"), ('{"images": [], "annotations": [{}]}', "labels")],
)
def test_files_that_are_no_labels(tmp_path, text, message):
    if text is not None:
        (tmp_path / "train.json").write_text(text)
    with pytest.raises(QanetError, match=message):
        doubt(tmp_path, Teacher())


def test_the_command_rewrites_the_file_and_says_how_many_were_seen(tmp_path, capsys):
    from qanet.runtime.detectors import onnx

    folder = write_labelled(tmp_path / "frames", count=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx, "OnnxDetector", lambda path, score, threads: Teacher())
        assert main([str(folder), "--detector", "teacher.onnx"]) == 0
    assert "the teacher sees 1 of 1 people" in capsys.readouterr().out
    assert scores_of(folder) == pytest.approx([0.85])
