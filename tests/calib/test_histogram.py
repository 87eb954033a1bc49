"""The widening histogram: exact merges, no dependence on order, and the values it must refuse."""

import numpy as np
import pytest

from qanet.calib.histogram import Histogram


def test_bins_merge_in_pairs_when_a_larger_value_arrives():
    histogram = Histogram(bins=4)
    histogram.add(np.array([0.0, 1.0, 2.0, 3.0], np.float32))  # 3 < 4 bins x 1: width 1
    assert histogram.width == 1
    assert histogram.counts.tolist() == [1, 1, 1, 1]
    histogram.add(np.array([-5.0], np.float32))  # 5 < 4 bins x 2: width 2, |x| is counted
    assert histogram.width == 2
    assert histogram.counts.tolist() == [2, 2, 1, 0]
    assert histogram.largest == 5


@pytest.mark.parametrize("pieces", [1, 2, 7, 50])
def test_order_and_split_do_not_matter(pieces):
    random = np.random.default_rng(0)
    values = (random.normal(size=5000) * np.exp(random.normal(size=5000) * 3)).astype(np.float32)
    whole, parts = Histogram(), Histogram()
    whole.add(values)
    for part in np.array_split(np.sort(values)[::-1] if pieces % 2 else np.sort(np.abs(values)), pieces):
        parts.add(part)
    assert parts.width == whole.width
    assert parts.largest == whole.largest == np.abs(values).max()
    np.testing.assert_array_equal(parts.counts, whole.counts)


def test_counts_are_those_of_the_final_width():
    values = np.random.default_rng(1).exponential(size=3000).astype(np.float32)
    histogram = Histogram(bins=64)
    for part in np.array_split(np.sort(values), 9):
        histogram.add(part)
    edges = np.arange(65) * histogram.width
    np.testing.assert_array_equal(histogram.counts, np.histogram(values, edges)[0])
    assert histogram.used_bins() > 32  # the largest value lies in the upper half


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_refused(bad):
    with pytest.raises(ValueError, match="NaN or infinite"):
        Histogram().add(np.array([1.0, bad], np.float32))


def test_zeros_alone_use_no_bin():
    histogram = Histogram()
    histogram.add(np.zeros(10, np.float32))
    assert (histogram.used_bins(), histogram.largest, histogram.counts[0]) == (0, 0.0, 10)
