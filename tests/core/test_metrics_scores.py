"""What a prediction's scores decide, and the curves and correlations over them, by hand."""

import numpy as np
import pytest
from metric_cases import LEFT, person

from qanet.metrics import Truth, evaluate_parsing
from qanet.metrics.curves import average_precision, calibration_error, rank_correlation


def test_the_weights_change_the_order():
    good, bad = person(LEFT, 0.5, box=0.5), person(np.roll(LEFT, 1, axis=1), 0.4, box=0.9)
    truth = Truth(LEFT, (LEFT > 0).astype(np.uint8))
    fused = evaluate_parsing([truth], [[bad, good]], num_classes=3, weights=(1, 0.5, 3))
    box = evaluate_parsing([truth], [[bad, good]], num_classes=3, weights=(1, 0, 0))
    assert fused["ap_p_per_threshold"][8] == 1 and box["ap_p_per_threshold"][8] == 0.5
    assert fused["rank_correlation_quality"] == pytest.approx(1)
    assert box["rank_correlation_quality"] == pytest.approx(-1) == fused["rank_correlation_box"]


def test_thresholds_of_box_and_quality():
    truth = Truth(LEFT, (LEFT > 0).astype(np.uint8))
    faint_box = evaluate_parsing([truth], [[person(LEFT, 0.9, box=0.29)]], num_classes=3)
    assert faint_box["iou"][1] == 0 and faint_box["ap_p"] == 1  # not in the semantic map, but a person
    faint = evaluate_parsing([truth], [[person(LEFT, 0.009)]], num_classes=3)
    assert faint["ap_p"] == faint["ap_r"] == faint["ap_h"] == 0


def test_rank_correlation_by_hand():
    assert rank_correlation(np.array([1.0, 2, 3]), np.array([10.0, 20, 90])) == pytest.approx(1)
    assert rank_correlation(np.array([3.0, 2, 1]), np.array([10.0, 20, 90])) == pytest.approx(-1)
    # ranks 1, 2.5, 2.5, 4 against 1..4: covariance 4.5, spreads 4.5 and 5
    tied = rank_correlation(np.array([1.0, 2, 2, 3]), np.array([1.0, 2, 3, 4]))
    assert tied == pytest.approx(4.5 / np.sqrt(4.5 * 5))
    assert rank_correlation(np.array([1.0, np.nan, 3]), np.array([1.0, 0, 3])) == pytest.approx(1)
    assert np.isnan(rank_correlation(np.array([1.0, 1]), np.array([1.0, 2])))
    assert np.isnan(rank_correlation(np.array([1.0]), np.array([1.0])))


def test_calibration_error_by_hand():
    # bins 0.1..0.2: mean score 0.15 against 0.35 (2 people); 0.9..1: 0.95 against 0.75 (1); above 1 is the last bin
    scores, truth = np.array([0.12, 0.18, 0.95]), np.array([0.4, 0.3, 0.75])
    assert calibration_error(scores, truth) == pytest.approx((2 * 0.2 + 0.2) / 3)
    assert calibration_error(np.array([0.9, 1.1]), np.array([1.0, 1.0])) == pytest.approx(0)
    assert calibration_error(np.array([0.5, np.nan]), np.array([0.4, 1.0])) == pytest.approx(0.1)
    assert np.isnan(calibration_error(np.array([np.nan]), np.array([1.0])))


def test_average_precision_by_hand():
    assert average_precision(np.array([True, False, True]), 2, absent=0) == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert average_precision(np.zeros(0, bool), 2, absent=0) == 0
    assert average_precision(np.zeros(0, bool), 0, absent=0) == 0
    assert np.isnan(average_precision(np.array([False]), 0, absent=0))
