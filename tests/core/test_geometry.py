"""Boxes to crops and back: exact where the arithmetic is exact, and errors that name the box."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qanet.errors import QanetError
from qanet.geometry import (
    CROP_SCALE,
    box_to_image,
    check_boxes,
    crop_boxes,
    crop_people,
    pairwise_iou,
    resample,
    resample_labels,
    subsamples,
    suppress,
)


@given(
    st.tuples(st.floats(-500, 500), st.floats(-500, 500), st.floats(1, 900), st.floats(1, 900)),
    st.tuples(st.integers(1, 512), st.integers(1, 512)),
)
def test_a_crop_box_has_the_crops_aspect_and_holds_the_person(box, crop_hw):
    x, y, width, height = box
    (x0, y0, x1, y1), *_ = crop_boxes([[x, y, x + width, y + height]], crop_hw)
    assert (x1 - x0) / (y1 - y0) == pytest.approx(crop_hw[1] / crop_hw[0], rel=1e-2)
    assert max((x1 - x0) / width, (y1 - y0) / height) >= CROP_SCALE * 0.99
    assert min((x1 - x0) / width, (y1 - y0) / height) == pytest.approx(CROP_SCALE, rel=1e-2)
    assert [(x0 + x1) / 2, (y0 + y1) / 2] == pytest.approx([x + width / 2, y + height / 2], abs=0.05)


def test_a_person_of_the_crops_aspect_grows_by_the_scale_alone():
    assert crop_boxes([[10, 20, 50, 100]], (80, 40)).tolist() == [[5, 10, 55, 110]]


def test_crop_coordinates_map_to_the_image_and_back():
    affine = box_to_image([10, 20, 74, 148], (64, 32))
    corners = np.array([[0, 0, 1], [32, 64, 1], [16, 32, 1]])
    assert (corners @ affine.T).tolist() == [[10, 20], [74, 148], [42, 84]]
    inverse = np.linalg.inv(np.vstack([affine, [0, 0, 1]]))
    assert (inverse @ [42, 84, 1]).tolist() == pytest.approx([16, 32, 1])


@pytest.fixture
def pattern():
    """(48, 64, 3) of random bytes: any shift by a pixel shows."""
    return np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def test_a_crop_at_scale_one_is_the_pixels_themselves(pattern):
    crop = resample(pattern, box_to_image([8, 4, 40, 36], (32, 32)), (32, 32))
    assert np.array_equal(crop, pattern[4:36, 8:40])


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_a_shrunk_crop_is_the_mean_of_the_pixels_it_covers(pattern, factor):
    size = 48 // factor
    crop = resample(pattern, box_to_image([8, 0, 56, 48], (size, size)), (size, size))
    means = pattern[:, 8:56].astype(float).reshape(size, factor, size, factor, 3).mean((1, 3))
    assert np.abs(crop - means).max() <= 0.5001  # rounding to a whole byte


def test_shrink_factors_are_bounded():
    assert subsamples(box_to_image([0, 0, 3200, 100], (100, 100))) == (8, 1)
    assert subsamples(box_to_image([0, 0, 50, 301], (100, 100))) == (1, 4)


def test_beyond_the_image_a_crop_is_black(pattern):
    crop = resample(pattern, box_to_image([-16, -16, 16, 16], (32, 32)), (32, 32))
    assert not crop[:15].any() and not crop[:, :15].any()
    assert np.array_equal(crop[16:, 16:], pattern[:16, :16])


@pytest.mark.parametrize("box", [[-1e6, -1e6, 1e6, 1e6], [9e5, 0, 1e6, 9], [500, 500, 600, 600]])
def test_boxes_far_beyond_the_image_are_cropped_all_the_same(pattern, box):
    crops = crop_people(pattern, np.array([box], np.float32), (16, 12))
    assert crops.shape == (1, 16, 12, 3)
    assert (crops > 0).sum() <= 3  # at most the one crop pixel that holds the whole image


def test_crops_of_nobody(pattern):
    assert crop_people(pattern, np.zeros((0, 4), np.float32), (16, 12)).shape == (0, 16, 12, 3)


def test_labels_are_resampled_to_the_nearest_and_filled_outside(pattern):
    labels = pattern[..., 0]
    doubled = resample_labels(labels, box_to_image([0, 0, 32, 32], (64, 64)), (64, 64))
    assert np.array_equal(doubled, labels[:32, :32].repeat(2, 0).repeat(2, 1))
    beyond = resample_labels(labels, box_to_image([-8, 0, 24, 32], (32, 32)), (32, 32), outside=255)
    assert (beyond[:, :8] == 255).all() and np.array_equal(beyond[:, 8:], labels[:32, :24])


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([[0, 0, 5, 5], [0, 0, float("nan"), 5]], "box 1 is not finite"),
        ([[0, 0, float("inf"), 5]], "box 0 is not finite"),
        ([[0, 0, 3e30, 5]], "box 0 is far too large .expected numbers in pixels"),
        ([[5, 0, 5, 5]], "box 0 is empty .expected x0 < x1 and y0 < y1, got .5.0, 0.0, 5.0, 5.0"),
        ([[0, 9, 5, 5]], "box 0 is empty"),
        ([[0, 0, 5, 5], [64, 0, 70, 5]], "box 1 lies wholly outside the image .expected a box touching 64x48"),
        ([[-9, 0, 0, 5]], "box 0 lies wholly outside"),
        ([0, 0, 5, 5], r"wrong shape .expected \(N, 4\) as x0 y0 x1 y1, got \(4,\)"),
        ([[0, 0, 5, 5, 1]], "wrong shape"),
        ([[0, 0, 5, 5], [1, 2]], "boxes are not numbers"),
        ("people", "boxes are not numbers"),
    ],
)
def test_boxes_that_cannot_be_used_are_named(boxes, message):
    with pytest.raises(QanetError, match=message):
        check_boxes(boxes, (48, 64))


def test_boxes_that_touch_the_image_pass_and_no_boxes_pass():
    assert check_boxes([[-9, -9, 0.5, 0.5]], (48, 64)).dtype == np.float32
    assert check_boxes([], (48, 64)).shape == (0, 4)


def boxes(*rows):
    return np.array(rows, np.float32).reshape(-1, 4)


PERSON, SHIFTED, OTHER = [0, 0, 10, 20], [0, 4, 10, 24], [40, 0, 50, 20]  # the first two have an IoU of 2/3


def test_suppression_keeps_the_best_and_what_is_apart():
    found = boxes(PERSON, SHIFTED, OTHER)
    assert suppress(found, np.array([0.5, 0.9, 0.1], np.float32), 0.5).tolist() == [1, 2]
    assert suppress(found, np.array([0.5, 0.9, 0.1], np.float32), 0.7).tolist() == [1, 0, 2]
    assert pairwise_iou(boxes(), found).shape == (0, 3)
    assert pairwise_iou(boxes(PERSON), boxes([3, 3, 3, 3])).tolist() == [[0.0]]
