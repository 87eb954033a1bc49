"""Every metric on pictures so small that its value is counted by hand."""

import numpy as np
import pytest
from metric_cases import CATEGORY, HUMAN, LEFT, RIGHT, grid, person

from qanet.metrics import PROTOCOLS, ParsingEvaluator, Truth, evaluate_parsing
from qanet.metrics.measures import boundary_band, boundary_counts
from qanet.metrics.people import class_iou, crop_person, index_truth


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_perfect_prediction_is_one_everywhere(protocol):
    truth = Truth(CATEGORY, HUMAN)
    report = evaluate_parsing([truth], [[person(LEFT), person(RIGHT, 0.8)]], num_classes=3, protocol=protocol)
    for key in (
        "miou",
        "pixel_accuracy",
        "mean_accuracy",
        "boundary_miou",
        "mean_true_iou",
        "ap_p",
        "ap_p_50",
        "pcp",
        "pcp_50",
        "ap_r",
        "ap_r_50",
        "ap_h",
        "ap_h_50",
    ):
        assert report[key] == pytest.approx(1, abs=1e-9), key
    assert report["ece_quality"] == pytest.approx(0.15, abs=1e-6)  # scores 0.9 and 0.8, IoU 1 and 1
    assert np.isnan(report["rank_correlation_quality"])  # every person is equally good
    assert (report["images"], report["persons"], report["predictions"]) == (1, 2, 2)


def test_counts_by_hand():
    # truth: one person of class 1, 4 pixels of 12; predicted: 2 of them and 1 pixel of background
    truth, labels = Truth(grid("1111", "....", "...."), grid("1111", "....", "....")), grid("11..", "1...", "....")
    report = evaluate_parsing([truth], [[person(labels, classes=2)]], num_classes=2)
    np.testing.assert_allclose(report["iou"], [7 / 10, 2 / 5])  # background: 8 true, 9 predicted, 7 in common
    assert report["miou"] == pytest.approx((7 / 10 + 2 / 5) / 2)
    assert report["pixel_accuracy"] == pytest.approx(9 / 12)
    assert report["mean_accuracy"] == report["mean_recall"] == pytest.approx((7 / 8 + 2 / 4) / 2)
    np.testing.assert_allclose(report["f_measure"], [2 * 7 / (8 + 9), 2 * 2 / (4 + 3)])
    assert report["mean_f_measure"] == pytest.approx((14 / 17 + 4 / 7) / 2)
    # mean class IoU 0.55: above 0.1..0.5. AP^r: IoU 0.4, strictly above 0.1..0.3 only. PCP likewise.
    np.testing.assert_array_equal(report["ap_p_per_threshold"], [1, 1, 1, 1, 1, 0, 0, 0, 0])
    np.testing.assert_array_equal(report["ap_r_per_threshold"], [1, 1, 1, 0, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(report["pcp_per_threshold"], [1, 1, 1, 0, 0, 0, 0, 0, 0])


def test_a_pcp_threshold_counts_parts_of_matched_people_only():
    # two people; the left one's class 1 is right, its class 2 is missing; nobody is predicted on the right
    labels = np.where(LEFT == 1, LEFT, 0).astype(np.uint8)
    report = evaluate_parsing([Truth(CATEGORY, HUMAN)], [[person(labels)]], num_classes=3)
    # mean class IoU = (26/30 + 1 + 0) / 3 = 0.622: matched up to 0.6 with 1 of 2 parts, so PCP = (1/2 + 0) / 2
    np.testing.assert_allclose(report["pcp_per_threshold"], [0.25] * 6 + [0] * 3)
    np.testing.assert_allclose(report["ap_p_per_threshold"], [0.5] * 6 + [0] * 3)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_recall_and_f_measure_run_over_the_classes_that_there_are(protocol):
    # class 1: 4 of 4 found; class 2 is only predicted, in 1 pixel: no recall, F-measure 0; class 3 is in neither
    truth, labels = Truth(grid("1111", "...."), grid("1111", "....")), grid("1111", "2...")
    report = evaluate_parsing([truth], [[person(labels, classes=4)]], num_classes=4, protocol=protocol)
    assert report["mean_recall"] == pytest.approx((3 / 4 + 1) / 2)
    np.testing.assert_allclose(report["f_measure"], [6 / 7, 1, 0, np.nan])
    assert report["mean_f_measure"] == pytest.approx((6 / 7 + 1 + 0) / 3)


def test_the_image_s_f_measure_runs_over_what_is_annotated_there():
    # the first: background 3 of 4 and not 1 pixel more, class 1 all; class 2, only predicted, has no share of its own.
    # The second shows background alone, and 3 of its 8 pixels are taken for class 1.
    first = Truth(grid("1111", "...."), grid("1111", "....")), [person(grid("1111", "2..."), classes=4)]
    second = Truth(grid("....", "...."), grid("....", "....")), [person(grid("111.", "...."), classes=4)]
    for images, expected in (([first], (6 / 7 + 1) / 2), ([first, second], ((6 / 7 + 1) / 2 + 10 / 13) / 2)):
        report = evaluate_parsing(*map(list, zip(*images)), num_classes=4)
        assert report["image_f_measure"] == pytest.approx(expected)


def test_void_is_left_out():
    category = grid("11..", "vv..", "vv..", "....")
    human = grid("11..", "11..", "11..", "....")
    labels = grid("11..", "11..", "11..", "....")  # class 1 all over void
    images = [Truth(category, human)], [[person(labels, classes=2)]]
    official = evaluate_parsing(*images, num_classes=2)
    strict = evaluate_parsing(*images, num_classes=2, protocol="strict")
    for report in (official, strict):
        for key in ("miou", "pixel_accuracy", "ap_p", "pcp"):
            assert report[key] == pytest.approx(1, abs=1e-9), key
    # the region has 6 pixels, 2 of them true: IoU 1/3 under the official protocol
    np.testing.assert_array_equal(official["ap_r_per_threshold"], [1, 1, 1, 0, 0, 0, 0, 0, 0])
    assert strict["ap_r"] == strict["ap_h"] == 1


def test_an_image_of_void_says_nothing_about_the_scores():
    void = Truth(grid("vv", "vv"), grid("11", "11"))
    report = evaluate_parsing([void], [[person(grid("1.", ".."), classes=2)]], num_classes=2)
    assert np.isnan(report["mean_true_iou"]) and report["ap_p"] == 0


def test_another_persons_void_is_background():
    # the predicted person spills over the void of person 2: an error for person 1
    category, human = grid("11vv", "...."), grid("1122", "....")
    iou = class_iou(
        index_truth(Truth(category, human), 2, void_people=True),
        crop_person(person(grid("1111", "...."), classes=2), 2),
    )
    np.testing.assert_allclose(iou, [[4 / 6, 2 / 4], [4 / 6, 0]])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_ground_truths_of_different_images_are_different(protocol):
    truths, predictions = [Truth(CATEGORY, HUMAN)] * 2, [[person(LEFT), person(RIGHT)]] * 2
    report = evaluate_parsing(truths, predictions, num_classes=3, protocol=protocol)
    assert report["persons"] == 4
    assert report["ap_p"] == report["ap_r"] == report["ap_h"] == report["pcp"] == 1


def test_a_predicted_class_without_ground_truth_is_no_ap_r_but_costs_miou():
    labels = np.where(LEFT == 2, 3, LEFT).astype(np.uint8)
    for protocol in PROTOCOLS:
        report = evaluate_parsing(
            [Truth(CATEGORY, HUMAN)], [[person(labels, classes=4)]], num_classes=4, protocol=protocol
        )
        assert np.isnan(report["ap_r_per_class"][2]).all()
        np.testing.assert_array_equal(report["ap_r_per_class"][:2, 4], [0.5, 0])
        assert report["iou"][3] == 0 and report["miou"] == pytest.approx((20 / 26 + 1 / 2 + 0 + 0) / 4)


def test_a_listed_part_without_pixels_is_no_ground_truth():
    parts = np.where(LEFT > 0, LEFT + 6, 0).astype(np.uint8)  # ids 7 and 8
    table = np.array([[7, 1, 1], [8, 2, 1], [5, 2, 1], [9, 1, 1]])
    truth = Truth(LEFT, (LEFT > 0).astype(np.uint8), parts, table)
    assert evaluate_parsing([truth], [[person(LEFT)]], num_classes=3)["ap_r"] == 1


def test_semantic_use_without_people():
    empty = np.zeros_like(CATEGORY)
    report = evaluate_parsing([Truth(CATEGORY, empty)], [[person(CATEGORY)]], num_classes=3)
    assert report["miou"] == pytest.approx(1)
    for key in ("ap_p", "pcp", "ap_r", "rank_correlation_quality", "ece_quality"):
        assert np.isnan(report[key]), key


def test_no_image_at_all():
    report = ParsingEvaluator(3, "strict").report()
    assert report["images"] == 0
    for key in ("miou", "pixel_accuracy", "ap_p", "pcp_50", "ap_r", "ap_h", "ece_quality", "boundary_miou"):
        assert np.isnan(report[key]), key


def test_boundary_iou_by_hand():
    labels = grid("1122", "1122", "1122")
    np.testing.assert_array_equal(boundary_band(labels, 1), grid(".11.", ".11.", ".11.") > 0)
    known = np.ones(labels.shape, bool)
    known[:, 2] = False  # a change to or from void is no boundary
    assert not boundary_band(labels, 1, known).any()
    shifted = grid("1112", "1112", "1112")  # its boundary: columns 2 and 3
    hits, unions = boundary_counts(labels, shifted, 3)
    # class 1: columns {1} and {2}; class 2: columns {2} and {3}; nothing in common
    assert hits.tolist() == [0, 0, 0] and unions.tolist() == [0, 6, 6]
    hits, unions = boundary_counts(labels, labels, 3)
    assert hits.tolist() == unions.tolist() == [0, 3, 3]


def test_boundary_iou_is_the_papers_where_nothing_touches_the_border():
    import cv2

    rng = np.random.default_rng(3)
    truth, guess = (np.zeros((120, 160), np.uint8) for _ in range(2))
    for labels in (truth, guess):
        for class_id in (1, 2, 1, 2):
            y, x = rng.integers(10, 60, 2)
            labels[y : y + 45, x : x + 40] = class_id
    distance = round(0.02 * np.hypot(120, 160))  # the paper's: so many erosions by 3x3

    def band(labels, class_id):
        mask = (labels == class_id).astype(np.uint8)
        return (mask - cv2.erode(mask, np.ones((3, 3), np.uint8), iterations=distance)) > 0

    hits, unions = boundary_counts(truth, guess, 3)
    for class_id in (1, 2):
        one, two = band(truth, class_id), band(guess, class_id)
        assert (hits[class_id], unions[class_id]) == ((one & two).sum(), (one | two).sum()) and hits[class_id] > 0
