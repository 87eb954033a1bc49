"""Run lengths against pycocotools, both ways."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from qanet.errors import QanetError
from qanet.rle import decode, encode, encode_labels

masks = arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=24), elements=st.integers(0, 1))


@given(masks)
def test_encode_equals_pycocotools(mask):
    reference = pytest.importorskip("pycocotools.mask").encode(np.asfortranarray(mask))
    assert encode(mask) == {"size": reference["size"], "counts": reference["counts"].decode()}


@given(masks)
def test_decode_reads_what_pycocotools_writes(mask):
    reference = pytest.importorskip("pycocotools.mask").encode(np.asfortranarray(mask))
    assert np.array_equal(decode({"size": reference["size"], "counts": reference["counts"].decode()}), mask)


@pytest.mark.parametrize("value", [0, 1])
@pytest.mark.parametrize("size", [(1, 1), (3000, 4000)])
def test_long_runs_survive(size, value):
    mask = np.full(size, value, np.uint8)
    mask[-1, -1] = 1
    assert np.array_equal(decode(encode(mask)), mask)


def test_any_number_above_zero_counts_as_the_mask():
    assert encode(np.array([[0, 7], [255, 0]], np.uint8)) == encode(np.array([[False, True], [True, False]]))


def test_counts_that_do_not_fill_the_size_are_refused():
    with pytest.raises(QanetError, match="do not fill the mask .expected 6, got 4"):
        decode({"size": [2, 3], "counts": encode(np.ones((2, 2)))["counts"]})
    with pytest.raises(QanetError, match=r"two axes .expected \(H, W\), got \(2, 2, 1\)"):
        encode(np.ones((2, 2, 1)))


regions = arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 3))


@settings(deadline=None)
@given(regions, st.tuples(*[st.integers(0, 4)] * 4))
def test_all_classes_of_a_region_at_once_are_as_one_by_one(labels, margins):
    left, top, right, bottom = margins  # of the image around the region; without any, runs go on from column to column
    image = np.pad(labels, ((top, bottom), (left, right)))
    expected = {int(c): (int((labels == c).sum()), encode(image == c)) for c in np.unique(labels) if c}
    found = encode_labels(labels, (left, top), image.shape)
    assert found == expected and list(found) == list(expected)


def test_an_empty_region_and_one_of_background_have_no_masks():
    assert encode_labels(np.zeros((0, 4), np.uint8), (0, 0), (9, 9)) == {}
    assert encode_labels(np.zeros((3, 4), np.uint8), (0, 0), (9, 9)) == {}
