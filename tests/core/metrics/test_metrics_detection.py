"""Recall at a rate of false boxes and average precision: by hand, at their edges, with bad input."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qanet.errors import QanetError
from qanet.metrics.detection import (
    DetectedImage,
    at_threshold,
    average_precision,
    bootstrapped_precisions,
    recall_at_false_rate,
)


def boxes(*rows):
    return np.array(rows, np.float32).reshape(-1, 4)


PERSON, OTHER, NOBODY = [0, 0, 10, 20], [40, 0, 50, 20], [80, 80, 90, 99]
SHIFTED = [0, 4, 10, 24]  # IoU 2/3 with PERSON


def image(found, scores, true, neutral=()):
    return DetectedImage(boxes(*found), np.array(scores, np.float32), boxes(*true), boxes(*neutral))


@pytest.mark.parametrize(
    ("images", "rate", "recall", "false"),
    [
        ([image([PERSON], [0.9], [PERSON])], 0, 1.0, 0.0),
        ([image([SHIFTED], [0.9], [PERSON])], 0, 1.0, 0.0),
        ([image([OTHER], [0.9], [PERSON])], 0, 0.0, 0.0),
        ([image([OTHER, PERSON], [0.9, 0.8], [PERSON])], 0, 0.0, 0.0),  # the false one comes first
        ([image([OTHER, PERSON], [0.9, 0.8], [PERSON])], 1, 1.0, 1.0),
        ([image([PERSON, SHIFTED], [0.9, 0.8], [PERSON])], 0, 1.0, 0.0),  # the second box is false, but comes later
        ([image([PERSON, OTHER], [0.9, 0.9], [PERSON])], 0, 0.0, 0.0),  # one score: no threshold between them
        ([image([PERSON], [0.9], [PERSON, OTHER])], 0, 0.5, 0.0),
        ([image([OTHER, PERSON], [0.9, 0.8], [PERSON], [OTHER])], 0, 1.0, 0.0),  # neutral is not false
        ([image([], [], [PERSON])], 0.1, 0.0, 0.0),
        ([image([PERSON], [0.9], [PERSON]), image([NOBODY], [0.5], [])], 0.5, 1.0, 0.5),
        ([image([PERSON], [0.4], [PERSON]), image([NOBODY], [0.5], [])], 0.1, 0.0, 0.0),
    ],
)
def test_recall_by_hand(images, rate, recall, false):
    got = recall_at_false_rate(images, rate)
    assert (got.recall, got.false_per_image) == (recall, false)
    assert got.images == len(images) and got.true_boxes == sum(len(i.true) for i in images)


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        ([image([PERSON], [0.9], [PERSON])], 1.0),
        ([image([OTHER, PERSON], [0.9, 0.8], [PERSON])], 0.5),  # the false one comes first
        ([image([PERSON, OTHER], [0.9, 0.8], [PERSON])], 1.0),
        ([image([PERSON], [0.9], [PERSON, OTHER])], 51 / 101),  # recalls 0 to 0.5
        ([image([OTHER, PERSON], [0.9, 0.8], [PERSON], [OTHER])], 1.0),  # neutral is not false
        ([image([], [], [PERSON])], 0.0),
        ([image([PERSON], [0.9], [PERSON]), image([NOBODY], [0.95], [])], 0.5),
    ],
)
def test_average_precision_by_hand(images, expected):
    assert average_precision(images) == pytest.approx(expected)


def test_what_is_half_in_a_crowd_does_not_count():
    crowd = boxes([40, 0, 50, 11])
    found = DetectedImage(boxes(OTHER, PERSON), np.array([0.9, 0.8], np.float32), boxes(PERSON), areas=crowd)
    assert average_precision([found]) == 1
    less = DetectedImage(found.boxes, found.scores, found.true, areas=boxes([40, 0, 50, 9]))
    assert average_precision([less]) == 0.5
    assert at_threshold([found], 0.85) == (0, pytest.approx(np.nan, nan_ok=True)) and at_threshold([less], 0.5) == (
        1,
        0.5,
    )


def test_draws_of_images_spread_around_the_precision_and_are_the_same_for_two_detectors():
    images = [image([PERSON], [0.9], [PERSON])] * 6 + [image([NOBODY], [0.95], [PERSON])] * 2
    drawn = bootstrapped_precisions(images, rounds=200)
    assert drawn.shape == (200,) and drawn.min() < average_precision(images) < drawn.max() <= 1
    assert (drawn == bootstrapped_precisions(images, rounds=200)).all()


def test_nobody_to_find_is_nan_and_bad_questions_are_named():
    assert np.isnan(recall_at_false_rate([image([NOBODY], [0.5], [])], 0.1).recall)
    assert np.isnan(average_precision([image([NOBODY], [0.5], [])]))
    for images, rate, iou in (([], 0.1, 0.5), ([image([], [], [])], -1, 0.5), ([image([], [], [])], 0, 0)):
        with pytest.raises(QanetError, match="nothing to measure"):
            recall_at_false_rate(images, rate, iou)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 3))
def test_the_threshold_gives_what_is_told(seed, rate):
    """Counting again with the threshold alone gives the same recall and false boxes, within the rate."""
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 60, (2, 12, 2))
    some = np.concatenate([corners[0], corners[0] + rng.integers(5, 30, (12, 2))], 1)
    images = [image(some[k : k + 4], rng.integers(1, 9, 4) / 10, some[k + 2 : k + 4]) for k in (0, 4, 8)]
    got = recall_at_false_rate(images, rate)
    kept = [i.scores >= got.threshold - 1e-9 for i in images]
    cut = [image(i.boxes[k], i.scores[k], i.true) for i, k in zip(images, kept)]
    again = recall_at_false_rate(cut, 100)
    assert got.false_per_image <= rate + 1e-9
    assert again.recall == got.recall and again.false_per_image == pytest.approx(got.false_per_image)
