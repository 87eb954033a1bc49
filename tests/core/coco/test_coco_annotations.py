"""Boxes of people in COCO's form: what a file holds image by image, and what is wrong with a broken one."""

import json

import numpy as np
import pytest

from qanet.coco.annotations import read_people_boxes
from qanet.errors import QanetError

IMAGES = [{"id": 7, "file_name": "street.jpg", "source": "film-0042.jpg"}, {"id": "b", "file_name": "empty.jpg"}]


def write(path, document):
    path.write_text(json.dumps(document))
    return path


def test_people_and_crowds_come_image_by_image(tmp_path):
    annotations = [
        {"image_id": 7, "bbox": [1, 2, 3, 4]},
        {"image_id": 7, "bbox": [10, 20, 5.5, 8], "score": 0.4},
        {"image_id": 7, "bbox": [0, 0, 90, 9], "iscrowd": 1},
    ]
    path = write(tmp_path / "persons.json", {"images": IMAGES, "annotations": annotations})
    street, empty = read_people_boxes(path)
    assert (street.file_name, street.source) == ("street.jpg", "film-0042.jpg")
    assert street.boxes.tolist() == [[1, 2, 4, 6], [10, 20, 15.5, 28], [0, 0, 90, 9]]
    assert street.scores == pytest.approx([1, 0.4, 1]) and street.crowds.tolist() == [False, False, True]
    assert street.boxes.dtype == street.scores.dtype == np.float32
    assert (empty.file_name, empty.source) == ("empty.jpg", "") and empty.boxes.shape == (0, 4)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (None, "no persons.json in .*got No such file"),
        ([], "persons.json is not a file of labels .expected COCO images and annotations"),
        ({"images": IMAGES}, "is not a file of labels"),
        ({"images": IMAGES, "annotations": [{"image_id": 8, "bbox": [1, 2, 3, 4]}]}, "is not a file of labels.*got 8"),
        ({"images": IMAGES, "annotations": [{"image_id": 7, "bbox": [1, 2, 3]}]}, "is not a file of labels"),
        ({"images": IMAGES, "annotations": [{"image_id": 7, "bbox": "1234"[:2]}]}, "is not a file of labels"),
        ({"images": [{"id": 1}], "annotations": []}, "is not a file of labels.*file_name"),
        ({"images": [], "annotations": []}, "has no images .expected one or more, got 0"),
    ],
)
def test_a_broken_file_is_named(tmp_path, document, message):
    path = tmp_path / "persons.json"
    if document is not None:
        write(path, document)
    with pytest.raises(QanetError, match=message):
        read_people_boxes(path)
