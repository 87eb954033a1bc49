"""Detectors: YOLOX known by its outputs, the whole image, and boxes from a file in all its forms."""

import json

import cv2
import numpy as np
import pytest

from qanet.errors import QanetError
from qanet.geometry import check_boxes
from qanet.runtime.detectors.base import BoxesFile, Detections, WholeImage
from qanet.runtime.detectors.open import OnnxDetector
from qanet.runtime.parser import Parser

IMAGE = np.zeros((120, 160, 3), np.uint8)


@pytest.fixture(scope="module")
def yolox(shared):
    return OnnxDetector(shared / "data" / "models" / "yolox_nano.onnx", threads=1)


@pytest.fixture(scope="module")
def street(shared):
    """A frame of a clip with two people outdoors."""
    capture = cv2.VideoCapture(str(shared / "data" / "video" / "sports2d_demo.mp4"))
    capture.set(cv2.CAP_PROP_POS_FRAMES, 60)
    ok, frame = capture.read()
    assert ok
    return frame


def test_yolox_finds_the_people_of_a_street(yolox, street):
    found = yolox.detect(street)
    assert 1 <= len(found) <= 4
    check_boxes(found.boxes, street.shape[:2])
    assert found.scores.min() >= yolox.score_threshold and (np.diff(found.scores) <= 0).all()
    height = found.boxes[0, 3] - found.boxes[0, 1]
    assert height > 150 and height > found.boxes[0, 2] - found.boxes[0, 0]  # an upright adult


def test_yolox_finds_nobody_in_the_dark(yolox):
    assert len(yolox.detect(IMAGE)) == 0 and len(yolox.detect(np.zeros((1, 1, 3), np.uint8))) == 0


def test_yolox_boxes_move_with_the_picture(yolox, street):
    whole = yolox.detect(street)
    shifted = yolox.detect(cv2.copyMakeBorder(street, 136, 0, 0, 0, cv2.BORDER_REPLICATE))  # 32 network pixels
    assert abs(shifted.boxes[0] - whole.boxes[0] - [0, 136, 0, 136]).max() < 12


def test_another_model_is_refused_with_what_was_seen(tmp_path, tiny_graph):
    (tmp_path / "other.onnx").write_bytes(tiny_graph)
    with pytest.raises(QanetError, match="other.onnx is not a detector this version knows .*YOLOX.*inputs crops"):
        OnnxDetector(tmp_path / "other.onnx")


def test_a_file_that_is_no_model_is_refused(tmp_path, tiny_graph, capfd):
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(QanetError, match="text.onnx is not a readable ONNX model .got [A-Z]"):
        OnnxDetector(tmp_path / "text.onnx")
    (tmp_path / "cut.onnx").write_bytes(tiny_graph[: len(tiny_graph) // 2])
    with pytest.raises(QanetError, match="cut.onnx is not a readable ONNX model .got [A-Z]"):
        OnnxDetector(tmp_path / "cut.onnx")
    assert capfd.readouterr().err == ""
    with pytest.raises(QanetError, match="no detector at .*; next: leave --detector out to use the shipped detector"):
        OnnxDetector(tmp_path / "missing.onnx")


def test_the_whole_image_is_one_person():
    found = WholeImage().detect(IMAGE)
    assert found.boxes.tolist() == [[0, 0, 160, 120]] and found.scores.tolist() == [1]


@pytest.fixture
def boxes(tmp_path):
    """Writes a boxes file and opens it."""

    def open_boxes(content) -> BoxesFile:
        path = tmp_path / "boxes.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return BoxesFile(path)

    return open_boxes


def test_a_list_is_used_for_every_frame(boxes):
    detector = boxes([[1, 2, 30, 40], [5, 6, 70, 80, 0.5]])
    for frame in (0, 7, "a.jpg"):
        found = detector.detect(IMAGE, frame)
        assert found.boxes.tolist() == [[1, 2, 30, 40], [5, 6, 70, 80]] and found.scores.tolist() == [1, 0.5]
    assert detector.unused == []


def test_an_object_maps_frames_and_names(boxes):
    detector = boxes({"0": [[1, 2, 30, 40]], "a.jpg": [[5, 6, 70, 80, 0.25]], "9": []})
    assert detector.detect(IMAGE, 0).boxes.tolist() == [[1, 2, 30, 40]]
    assert detector.detect(IMAGE, "a.jpg").scores.tolist() == [0.25]
    assert len(detector.detect(IMAGE, 5)) == 0
    assert detector.unused == ["9"]


def test_coco_results_are_read(boxes):
    detector = boxes(
        [
            {"image_id": 3, "bbox": [10, 20, 30, 40], "score": 0.5},
            {"image_id": "a.jpg", "bbox": [0, 0, 5, 5]},
            {"image_id": 3, "bbox": [1, 2, 3, 4], "score": 0.25},
        ]
    )
    assert detector.detect(IMAGE, 3).boxes.tolist() == [[10, 20, 40, 60], [1, 2, 4, 6]]
    assert detector.detect(IMAGE, "a.jpg").scores.tolist() == [1]


def test_an_empty_list_is_nobody(boxes):
    assert len(boxes([]).detect(IMAGE)) == 0 and len(boxes({}).detect(IMAGE)) == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[[1, 2,", "boxes.json is no JSON"),
        ("5", "boxes cannot be read"),
        ("null", "boxes cannot be read"),
        ([[1, 2, 3]], "boxes cannot be read .expected lists of x0 y0 x1 y1 and maybe a score"),
        ([[1, 2, 3]] * 5, "boxes cannot be read"),
        ([[1, 2, 3, 4, 5, 6]], "boxes cannot be read"),
        (["1234"], "boxes cannot be read"),
        ({"0": {"a": 1}}, "boxes cannot be read"),
        ({"0": 5}, "cannot be read"),
        ([[1, 2, "x", 4]], "boxes cannot be read"),
        ([[1, 2, 3, 4, float("nan")]], "boxes cannot be read"),
        ([[9, 9, 3, 4]], "boxes.json: box 0 is empty"),
        ([[0, 0, float("inf"), 4]], "boxes.json: box 0 is not finite"),
        ([{"bbox": [1, 2, 3]}], "boxes.json: bad entry .expected bbox"),
        ([{"image_id": 1}], "bad entry"),
        ([{"image_id": 1, "bbox": [1, 2, 3, 4]}, 5], "bad entry"),
        ([{"image_id": 1, "bbox": [1, 2, 0, 4]}], "box 0 is empty"),
    ],
)
def test_a_boxes_file_that_cannot_be_used_is_refused(boxes, content, message):
    with pytest.raises(QanetError, match=message):
        boxes(content)


def test_boxes_outside_the_image_and_files_that_are_none_are_refused(boxes, tmp_path):
    with pytest.raises(QanetError, match="box 0 lies wholly outside the image"):
        boxes([[200, 0, 220, 10]]).detect(IMAGE)
    for path in (tmp_path / "missing.json", tmp_path):
        with pytest.raises(QanetError, match="no file|cannot be read"):
            BoxesFile(path)


@pytest.mark.parametrize(
    ("key", "frame", "found"),
    [
        (785, "000000000785.jpg", True),
        (785, "COCO_val2014_000000000785.jpg", True),
        ("000000000785", "000000000785.jpg", True),
        (0, "000.png", True),
        (785, 785, True),
        (785, "000000001785.jpg", False),
        (85, "000000000785.jpg", False),
        (4, "clip.mp4", False),
    ],
)
def test_a_number_of_coco_meets_the_file_of_that_number(boxes, key, frame, found):
    detector = boxes([{"image_id": key, "bbox": [1, 2, 30, 40]}, {"image_id": 99, "bbox": [1, 2, 3, 4]}])
    assert len(detector.detect(IMAGE, frame)) == found
    assert (str(key) in detector.unused) != found


def test_a_number_of_two_files_is_refused(boxes):
    detector = boxes([{"image_id": 7, "bbox": [1, 2, 30, 40]}])
    detector.detect(IMAGE, "a_007.jpg")
    with pytest.raises(QanetError, match="two images have the number 7 .*a_007.jpg, b_007.jpg"):
        detector.detect(IMAGE, "b_007.jpg")


@pytest.mark.parametrize("box", [[0.1, 0.2, 0.5, 0.9], [0, 0, 1, 1], [-0.1, 0.1, 1.2, 0.8]])
def test_boxes_in_fractions_are_refused(boxes, box):
    with pytest.raises(QanetError, match="the boxes are within one pixel .*multiply boxes in 0..1"):
        boxes([box]).detect(IMAGE)


BAD = float("nan")


@pytest.mark.parametrize(
    "row",
    [
        (BAD, 1, 20, 20, 0.5),
        (1, 1, 20, BAD, 0.5),
        (1, 1, float("inf"), 20, 0.5),
        (1, 1, 20, 20, BAD),
        (20, 1, 1, 20, 0.5),
    ],
)
def test_what_is_no_box_reaches_nobody_behind_the_detector(tiny_parser, row):
    class Broken:
        name = "broken"

        def detect(self, image, frame=0):
            rows = np.array([row, (10, 10, 50, 60, 0.9)], np.float32)
            return Detections(rows[:, :4], rows[:, 4])

    parser = Parser(tiny_parser.bundle, tiny_parser.engine, "kernel", Broken())
    assert parser.detect(IMAGE).boxes.tolist() == [[10, 10, 50, 60]]
