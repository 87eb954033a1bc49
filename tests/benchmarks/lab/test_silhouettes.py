"""Silhouettes: which pixels are whose, and when a silhouette does not fit its box. The network itself is not run."""

import json

import cv2
import numpy as np
import pytest

from qanet.benchmarks.lab import silhouettes as module
from qanet.benchmarks.lab.silhouettes import MARGIN, Boxed, boxed_photos, grown, silhouette_labels
from qanet.errors import QanetError
from qanet.labels import IGNORE
from qanet.train.data.people import ANY_CLASS, read_index

HW = (100, 100)
BOXES = np.array([[20, 20, 50, 80], [44, 20, 70, 80]], np.float32)


def labels_of(probability_of, boxes=BOXES):
    boxed = Boxed(None, boxes, np.ones(len(boxes), np.float32))
    rows, columns = grown(boxes[0], MARGIN, HW)
    return silhouette_labels(boxed, 0, probability_of[rows, columns].astype(np.float32), HW)


def test_pixels_in_two_boxes_are_nobodys():
    probability = np.zeros(HW)
    probability[25:75, 25:65] = 1
    probability[25:30, 25:30] = 0.5
    labels = labels_of(probability)
    assert labels[50, 30] == ANY_CLASS and labels[27, 27] == IGNORE  # sure, unsure
    assert labels[50, 47] == IGNORE and labels[50, 60] == IGNORE  # in both boxes, in the other's alone
    assert labels[90, 90] == 0 and labels[15, 15] == 0


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_box_without_anybody_or_full_to_the_rim_is_left_out(value):
    assert labels_of(np.full(HW, value), BOXES[:1]) is None


def test_boxes_are_read_with_scores_and_crowds(tmp_path):
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "a.png"), np.zeros((20, 20, 3), np.uint8))
    rows = [
        {"image_id": 1, "bbox": [1, 2, 3, 4], "iscrowd": 0},
        {"image_id": 1, "bbox": [5, 5, 2, 2], "iscrowd": 1},
        {"image_id": 1, "bbox": [0, 0, 9, 9], "score": 0.3},
    ]
    document = {"images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}], "annotations": rows}
    (tmp_path / "persons.json").write_text(json.dumps(document))
    (boxed,) = boxed_photos(tmp_path)
    assert boxed.boxes[0].tolist() == [1, 2, 4, 6] and boxed.scores.tolist() == pytest.approx([1, 0, 0.3])
    with pytest.raises(QanetError, match="no boxes"):
        list(boxed_photos(tmp_path / "images"))


def test_the_command_writes_a_folder_of_people(tmp_path, monkeypatch, capsys):
    source = tmp_path / "park"
    (source / "images").mkdir(parents=True)
    cv2.imwrite(str(source / "images" / "a.png"), np.zeros((*HW, 3), np.uint8))
    boxes = [{"image_id": 1, "bbox": [20, 20, 30, 60]}, {"image_id": 1, "bbox": [0, 0, 4, 4]}]
    (source / "persons.json").write_text(
        json.dumps({"images": [{"id": 1, "file_name": "a.png"}], "annotations": boxes})
    )

    class HalfSure:
        def __init__(self, model):
            pass

        def __call__(self, window):
            probability = np.zeros(window.shape[:2], np.float32)
            probability[10:60, 10:25] = 1
            return probability

    monkeypatch.setattr(module, "Silhouettes", HalfSure)
    assert module.main([str(source), "--model", "x.tflite", "--output", str(tmp_path / "out")]) == 0
    (person,) = read_index(tmp_path / "out")
    labels = cv2.imread(str(tmp_path / "out" / "labels" / f"{person.name}.png"), cv2.IMREAD_UNCHANGED)
    assert labels.shape == HW and set(np.unique(labels)) == {0, ANY_CLASS, IGNORE}
    assert "1 people" in capsys.readouterr().out
