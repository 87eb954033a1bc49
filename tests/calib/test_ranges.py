"""Ranges of hand-made histograms against ranges worked out by hand."""

import math

import numpy as np
import pytest

from qanet.calib.ranges import METHODS, Histogram, _divergence, find_range
from qanet.errors import QanetError


def test_entropy_by_hand():
    # Two levels; KL of the reference (clipped mass in its last bin) from what two levels can tell:
    # 2 bins: (9, 12)/21 from (9, 9)/18          3/7 ln(6/7) + 4/7 ln(8/7)          = 0.0102   <- least
    # 3 bins: (9, 9, 3)/21 from (9, 9, 1)/19     18/21 ln(19/21) + 3/21 ln(57/21)   = 0.0568
    # 4 bins: (9, 9, 1, 2)/21 from (9, 9, 1, 1)  19/21 ln(20/21) + 2/21 ln(40/21)   = 0.0172
    # 5 bins: the clipped value falls into an empty bin                             = infinite
    # 6 bins: levels (9, 9, 1) and (1, 0, 1)     18/21 ln(27/19) + 1/21 ln(3/19)    = 0.2133
    histogram = Histogram.from_counts(np.array([9, 9, 1, 1, 0, 1]))
    expected = {
        2: 3 / 7 * math.log(6 / 7) + 4 / 7 * math.log(8 / 7),
        3: 18 / 21 * math.log(19 / 21) + 3 / 21 * math.log(57 / 21),
        4: 19 / 21 * math.log(20 / 21) + 2 / 21 * math.log(40 / 21),
        5: math.inf,
        6: 18 / 21 * math.log(27 / 19) + 1 / 21 * math.log(3 / 19),
    }
    for bins, divergence in expected.items():
        assert _divergence(histogram.counts.astype(float), bins, 2) == pytest.approx(divergence, abs=1e-12)
    assert find_range(histogram, "entropy", levels=2) == 2.0


def test_entropy_takes_no_notice_of_how_many_zeros_there_are():
    with_zeros = Histogram.from_counts(np.array([1_000_000, 9, 1, 1, 0, 1]))
    assert find_range(with_zeros, "entropy", levels=2) == 2.0


def test_percentile_by_hand():
    histogram = Histogram.from_counts(np.array([50, 30, 15, 4, 1]), exponent=-1)  # 100 values, bins of 0.5
    assert find_range(histogram, "percentile", percentile=80) == 1.0
    assert find_range(histogram, "percentile", percentile=80.5) == 1.5
    assert find_range(histogram, "percentile", percentile=95) == 1.5
    assert find_range(histogram, "percentile", percentile=100) == 2.5


def test_mse_by_hand():
    # Two levels, values at 0 (bin 0), 1.5, 2.5, 3.5 and 7.5 (bin 7), 10 of each but one of the last.
    # amax 3: steps of 1.5: 0, 1.5, 3, 3 (saturated), 3: errors 10 x 0 + 10 x .25 + 10 x .25 + 1 x 20.25 = 25.25
    # amax 4: steps of 2:   2, 2, 4, 4:                   10 x .25 + 10 x .25 + 10 x .25 + 12.25          = 19.75
    # amax 5: steps of 2.5: 2.5, 2.5, 2.5, 5:             10 x 1 + 0 + 10 x 1 + 6.25                      = 26.25
    # amax 6: steps of 3:   1.5/3 rounds to even 0, 3, 3, 6: 22.5 + 2.5 + 2.5 + 2.25                      = 29.75
    # amax 8: steps of 4:   0, 4, 4, 8:                   22.5 + 22.5 + 2.5 + .25                         = 47.75
    histogram = Histogram.from_counts(np.array([10, 10, 10, 10, 0, 0, 0, 1]))
    assert find_range(histogram, "mse", levels=2) == 4.0


def test_minmax_is_the_exact_largest_value():
    histogram = Histogram()
    histogram.add(np.array([0.1, -2.7182817], np.float32))
    assert find_range(histogram, "minmax") == float(np.float32(2.7182817))


@pytest.mark.parametrize("method", ["entropy", "percentile", "mse"])
def test_a_lone_outlier_is_cut_off(method):
    histogram = Histogram()
    histogram.add(np.random.default_rng(0).normal(size=200_000).astype(np.float32))
    histogram.add(np.array([15.0], np.float32))
    assert 3.0 < find_range(histogram, method) < 12.0


@pytest.mark.parametrize("method", METHODS)
def test_no_range_reaches_beyond_what_was_seen(method):
    histogram = Histogram()
    histogram.add(np.full(100, 0.7, np.float32))  # not on a bin's edge
    assert find_range(histogram, method, percentile=100) == pytest.approx(0.7)
    assert find_range(Histogram(), method) == 0.0


def test_unknown_method_lists_the_known_ones():
    with pytest.raises(QanetError, match="entropy, percentile, mse, minmax"):
        find_range(Histogram(), "median")
    with pytest.raises(QanetError, match="percentile is out of range"):
        find_range(Histogram(), "percentile", percentile=0)


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
