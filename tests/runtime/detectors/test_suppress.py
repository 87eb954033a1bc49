"""Suppression of duplicates: by boxes, as a detector does it, and by what the people look like."""

import numpy as np
import pytest

from qanet.geometry import pairwise_iou, suppress
from qanet.results import Person
from qanet.runtime.detectors.base import clip_boxes
from qanet.runtime.postprocess import MIN_QUALITY, mean_iou, parsing_nms


def person(quality, labels, corner=(0, 0)):
    labels = np.asarray(labels, np.uint8)
    x, y = corner
    roi = (x, y, x + labels.shape[1], y + labels.shape[0])
    scores = np.zeros(3, np.float32)
    return Person(np.array(roi, np.float32), 1.0, 1.0, 1.0, quality, scores, scores, labels, roi)


def test_mean_iou_is_over_the_classes_of_either():
    a = person(1, [[1, 1, 2, 0], [1, 1, 2, 0]])
    b = person(1, [[1, 1, 3, 0], [1, 0, 3, 0]])
    assert mean_iou(a, b, 4) == mean_iou(b, a, 4) == pytest.approx((3 / 4 + 0 + 0) / 3)


def test_mean_iou_looks_at_the_whole_regions_not_only_at_the_overlap():
    a = person(1, np.ones((4, 4)))
    b = person(1, np.ones((4, 4)), (2, 0))
    assert mean_iou(a, b, 4) == pytest.approx(8 / 24)
    assert mean_iou(a, person(1, np.ones((4, 4)), (4, 0)), 4) == 0  # side by side


def test_mean_iou_of_people_without_a_part_is_zero():
    nothing = person(1, np.zeros((4, 4)))
    assert mean_iou(nothing, nothing, 4) == 0 and mean_iou(nothing, person(1, np.zeros((0, 4))), 4) == 0


def test_the_better_of_two_alike_is_kept():
    worse, better, other = (person(q, np.ones((4, 4)), (x, 0)) for q, x in ((0.5, 0), (0.9, 0), (0.7, 20)))
    assert parsing_nms([worse, better, other], 4) == [better, other]


def test_the_threshold_itself_suppresses():
    a, b = person(0.9, np.ones((1, 10))), person(0.5, np.ones((1, 6)))  # IoU 0.6
    assert parsing_nms([a, b], 4, threshold=0.6) == [a]
    assert parsing_nms([a, b], 4, threshold=0.61) == [a, b]


def test_people_of_no_quality_are_dropped():
    kept = [person(q, np.ones((2, 2)), (9 * i, 0)) for i, q in enumerate([MIN_QUALITY, 0.0, float("nan")])]
    assert parsing_nms(kept, 4) == kept[:1]


def test_background_is_nobody():
    few, enough = np.zeros((10, 100)), np.zeros((10, 100))
    few[0, :9], enough[0, :10] = 1, 1
    people = [person(0.9, few), person(0.9, np.zeros((4, 4))), person(0.8, np.zeros((0, 4))), person(0.5, enough)]
    assert parsing_nms(people, 4) == people[-1:]


def test_box_overlap_and_suppression():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 5], [20, 0, 30, 10], [0, 0, 10, 9]], np.float32)
    overlap = pairwise_iou(boxes, boxes)
    assert overlap[0].tolist() == pytest.approx([1, 0.5, 0, 0.9]) and np.array_equal(overlap, overlap.T)
    assert suppress(boxes, np.array([0.5, 0.6, 0.1, 0.9], np.float32), 0.5).tolist() == [3, 2]
    assert suppress(boxes, np.array([0.5, 0.6, 0.1, 0.9], np.float32), 0.95).tolist() == [3, 1, 0, 2]


def test_no_boxes_pass_through():
    nobody = np.zeros((0, 4), np.float32)
    assert suppress(nobody, np.zeros(0, np.float32), 0.5).tolist() == []
    assert pairwise_iou(nobody, np.zeros((3, 4), np.float32)).shape == (0, 3)


def test_boxes_are_cut_to_the_image():
    assert clip_boxes(np.array([[-5, -5, 50, 500]], np.float32), (100, 40)).tolist() == [[0, 0, 40, 100]]


@pytest.mark.parametrize("seed", range(20))
def test_the_quick_look_at_the_counts_changes_no_decision(seed):
    rng = np.random.default_rng(seed)
    people = []
    for _ in range(8):
        x0, y0 = rng.integers(0, 12, 2)
        h, w = rng.integers(4, 14, 2)
        rows = np.arange(h)[:, None] * 4 // h + np.zeros((1, w), int)  # bands: people who overlap may agree
        labels = np.where(rng.random((h, w)) < 0.1, rng.integers(0, 4, (h, w)), rows).astype(np.uint8)
        people.append(person(float(rng.uniform(0.1, 1)), labels, (int(x0), int(y0))))
    for threshold in (0.0, 0.1, 0.2, 0.3, 0.5):
        expected = []
        for one in sorted(people, key=lambda p: -p.quality):
            if all(mean_iou(one, other, 4) < threshold for other in expected):
                expected.append(one)
        assert parsing_nms(people, 4, threshold) == expected
