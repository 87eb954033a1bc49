"""Average precision, rank correlation, calibration error and boundary IoU on small numbers."""

import numpy as np
import pytest
from metric_cases import LEFT, grid, person

from qanet.metrics import Truth, evaluate_parsing
from qanet.metrics.measures import calibration_error, rank_correlation, reliability, voc_average_precision


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


def test_reliability_and_calibration_error_by_hand():
    # bins 0.1..0.2: mean score 0.15 against 0.35 (2 people); 0.9..1: 0.95 against 0.75 (1); above 1 is the last bin
    table = reliability(np.array([0.12, 0.18, 0.95]), np.array([0.4, 0.3, 0.75]))
    assert table.shape == (10, 3) and table[:, 0].tolist() == [0, 2, 0, 0, 0, 0, 0, 0, 0, 1]
    np.testing.assert_allclose(table[[1, 9], 1:], [[0.15, 0.35], [0.95, 0.75]])
    assert np.isnan(table[0, 1:]).all() and calibration_error(table) == pytest.approx((2 * 0.2 + 0.2) / 3)
    rows = [([0.9, 1.1], [1.0, 1.0], 0), ([0.5, np.nan], [0.4, 1.0], 0.1), ([-0.3, 2.5], [0.0, 0.5], (0.3 + 2) / 2)]
    for scores, truth, error in rows:  # nobody's score is outside the diagram
        assert calibration_error(reliability(np.array(scores), np.array(truth))) == pytest.approx(error)
    assert np.isnan(calibration_error(reliability(np.array([np.nan]), np.array([1.0]))))


def test_scores_of_parts_are_held_against_the_iou_of_their_class():
    # class 1 is right (IoU 1), of class 2 the first of two rows (IoU 0.5), class 3 is nowhere in the truth (IoU 0)
    category = grid("11..", "22..", "22..", "....")
    labels = grid("11..", "22..", "33..", "....")
    truth = Truth(category, (category > 0).astype(np.uint8))
    parts = np.array([0.95, 0.55, 0.15])
    report = evaluate_parsing([truth], [[person(labels, 0.8, classes=4, parts=parts)]], num_classes=4)
    assert report["rank_correlation_part_pixel"] == report["rank_correlation_part_quality"] == pytest.approx(1)
    assert np.isnan(report["rank_correlation_part_box"])  # all three share their person's
    assert report["mean_true_part_iou"] == pytest.approx(0.5)
    np.testing.assert_allclose(
        report["reliability_part_pixel"][[1, 5, 9]], [[1, 0.15, 0], [1, 0.55, 0.5], [1, 0.95, 1]]
    )
    assert report["ece_part_pixel"] == pytest.approx((0.15 + 0.05 + 0.05) / 3)
    reversed_parts = evaluate_parsing([truth], [[person(labels, 0.8, classes=4, parts=parts[::-1])]], num_classes=4)
    assert reversed_parts["rank_correlation_part_pixel"] == pytest.approx(-1)
    assert report["reliability_part_box"][8].tolist() == pytest.approx([3, 0.8, 0.5])


def test_a_part_over_void_alone_says_nothing():
    category, human = grid("11vv", "11vv"), grid("1111", "1111")
    report = evaluate_parsing([Truth(category, human)], [[person(grid("1122", "1122"), classes=3)]], num_classes=3)
    assert report["reliability_part_pixel"][:, 0].sum() == 1 and report["mean_true_part_iou"] == 1


def test_average_precision_by_hand():
    assert voc_average_precision(np.array([True, False, True]), 2, absent=0) == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert voc_average_precision(np.zeros(0, bool), 2, absent=0) == 0
    assert voc_average_precision(np.zeros(0, bool), 0, absent=0) == 0
    assert np.isnan(voc_average_precision(np.array([False]), 0, absent=0))
