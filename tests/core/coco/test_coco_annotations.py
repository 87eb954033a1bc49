"""Annotation files: boxes of people image by image, and masks that equal those of pycocotools."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qanet.coco.annotations import fill_polygon, read_people_boxes, run_length_size, segmentation_mask
from qanet.errors import QanetError
from qanet.rle import encode

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


SIZE = (23, 31)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:pycocotools")
coordinates = st.one_of(st.floats(-6, 40), st.integers(-6, 40).map(float))
polygons = st.lists(coordinates, min_size=6, max_size=24).map(lambda values: values[: len(values) // 2 * 2])


@given(polygons)
@settings(max_examples=300, deadline=None)
def test_a_filled_polygon_equals_pycocotools(polygon):
    masks = pytest.importorskip("pycocotools.mask")
    expected = masks.decode(masks.frPyObjects([polygon], *SIZE))[:, :, 0]
    assert np.array_equal(fill_polygon(polygon, SIZE), expected)


def test_polygons_are_united():
    left, right = [1, 1, 5, 1, 5, 5, 1, 5], [4, 4, 9, 4, 9, 9, 4, 9]
    united = segmentation_mask([left, right], SIZE)
    assert np.array_equal(united, fill_polygon(left, SIZE) | fill_polygon(right, SIZE))
    assert united.sum() == 16 + 25 - 1


def test_an_axis_parallel_polygon_by_hand():
    mask = fill_polygon([2, 3, 6, 3, 6, 8, 2, 8], SIZE)
    expected = np.zeros(SIZE, np.uint8)
    expected[3:8, 2:6] = 1
    assert np.array_equal(mask, expected)


@pytest.mark.parametrize("form", ["packed", "bytes", "runs"])
def test_every_form_of_run_lengths_is_read(form):
    mask = np.random.default_rng(0).integers(0, 2, SIZE).astype(np.uint8)
    flat = mask.ravel(order="F")
    edges = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1, [flat.size]])
    runs = ([0] if flat[0] else []) + np.diff(edges).tolist()
    packed = encode(mask)["counts"]
    counts = {"packed": packed, "bytes": packed.encode(), "runs": runs}[form]
    assert np.array_equal(segmentation_mask({"size": list(SIZE), "counts": counts}, SIZE), mask)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        (None, "no segmentation"),
        ({"size": [3, 4]}, "no segmentation"),
        ({"counts": "04", "size": [3]}, "no seg"),
        ({"counts": "04", "size": [0, 4]}, "no segmentation"),
        ({"counts": 4, "size": [3, 4]}, "no segmentation"),
        ({"counts": [12], "size": [3, 4]}, r"differ in size .expected \(23, 31\), got \(3, 4\)"),
        ({"counts": [700], "size": list(SIZE)}, "do not fill the mask .expected 713"),
        ({"counts": [720, -7], "size": list(SIZE)}, "do not fill the mask"),
        ([[1, 2, 3, 4]], "three points"),
        ([[1, 2, 3, 4, 5, 6, 7]], "an even count"),
        ([[1, 2, 3, 4, 5, float("nan")]], "5 finite"),
        ([["a", "b"]], "not numbers"),
        ([[[1, 2], [3]]], "not numbers"),
    ],
)
def test_what_is_no_segmentation_is_told(segmentation, message):
    with pytest.raises(QanetError, match=message):
        segmentation_mask(segmentation, SIZE)


def test_the_size_of_run_lengths():
    assert run_length_size({"size": [2, 3], "counts": "06"}) == (2, 3)
    assert run_length_size([[0, 0, 1, 1, 2, 2]]) is None and run_length_size({"size": [2.0, 3], "counts": "06"}) is None
