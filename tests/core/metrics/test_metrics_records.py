"""The protocols differ where they should, and inputs that do not fit are named."""

import numpy as np
import pytest
from metric_cases import CATEGORY, HUMAN, LEFT, RIGHT, grid, person

from qanet.errors import QanetError
from qanet.metrics import PROTOCOLS, ParsingEvaluator, Truth, evaluate_parsing
from qanet.metrics.measures import ranking
from qanet.metrics.people import crop_person, pair_mean_iou, published_nms


def test_a_person_wholly_in_void_is_a_ground_truth_only_in_official():
    truth = Truth(grid("11vv", "...."), grid("1122", "...."))
    images = [truth], [[person(grid("11..", "...."), classes=2)]]
    official = evaluate_parsing(*images, num_classes=2)
    strict = evaluate_parsing(*images, num_classes=2, protocol="strict")
    assert (official["persons"], official["ap_p"], official["pcp"]) == (2, 0.5, 0.5)
    assert (strict["persons"], strict["ap_p"], strict["pcp"]) == (1, 1, 1)


def test_two_halves_make_two_true_positives_only_in_official():
    # one part of 4 pixels, two predictions of 2 pixels each: both have IoU 1/2 with it, strictly above 0.1..0.4
    truth = Truth(grid("1111", "...."), grid("1111", "...."))
    halves = [person(grid("11..", "...."), 0.9, classes=2), person(grid("..11", "...."), 0.8, classes=2)]
    options = {"num_classes": 2, "nms_threshold": 1.0}
    official = evaluate_parsing([truth], [halves], **options)
    strict = evaluate_parsing([truth], [halves], protocol="strict", **options)
    np.testing.assert_array_equal(official["ap_r_per_threshold"], [2, 2, 2, 2, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(strict["ap_r_per_threshold"], [1, 1, 1, 1, 0, 0, 0, 0, 0])
    # AP^p has the flag in both: the second half is a false positive behind full recall
    for report in (official, strict):
        np.testing.assert_array_equal(report["ap_p_per_threshold"][:4], [1, 1, 1, 1])


def test_nms_numbers_its_candidates_rightly_only_in_strict():
    # by quality: left, right, left again, right again, and a third person; the second "right again" is ahead of it
    third = np.roll(LEFT, 6, axis=1)
    truth = Truth(np.maximum(CATEGORY, third), np.where(third > 0, 3, HUMAN).astype(np.uint8))
    people = [person(m, s) for m, s in ((LEFT, 0.9), (RIGHT, 0.8), (LEFT, 0.7), (RIGHT, 0.6), (third, 0.5))]
    crops = [crop_person(p, 3) for p in people]
    quality = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    survivors = {name: published_nms(crops, quality, LEFT.size, 0.6, protocol) for name, protocol in PROTOCOLS.items()}
    assert {name: kept.tolist() for name, kept in survivors.items()} == {"official": [0, 1, 3, 4], "strict": [0, 1, 4]}
    # official: TP TP FP TP of 3 people, so AP = 2/3 + 1/3 * 3/4
    assert evaluate_parsing([truth], [people], num_classes=3)["ap_p"] == pytest.approx(2 / 3 + 1 / 4)
    assert evaluate_parsing([truth], [people], num_classes=3, protocol="strict")["ap_p"] == pytest.approx(1)


def test_nms_drops_at_its_threshold():
    # class 1: 1 of 3 pixels in common; background: 4 of 6; the mean is exactly 1/2
    people = [crop_person(person(m, classes=2), 2) for m in (grid("111...."), grid("1......"))]
    assert pair_mean_iou(*people, 7) == 0.5
    for protocol in PROTOCOLS.values():
        assert len(published_nms(people, np.array([0.9, 0.8]), 7, 0.5, protocol)) == 1
        assert len(published_nms(people, np.array([0.9, 0.8]), 7, 0.51, protocol)) == 2


def test_an_image_without_a_prediction_counts_in_strict():
    truths, predictions = [Truth(CATEGORY, HUMAN)] * 2, [[person(LEFT), person(RIGHT)], []]
    official = evaluate_parsing(truths, predictions, num_classes=3)
    strict = evaluate_parsing(truths, predictions, num_classes=3, protocol="strict")
    assert official["pixel_accuracy"] == 1 and strict["pixel_accuracy"] == pytest.approx((32 + 20) / 64)
    np.testing.assert_allclose(strict["iou"], [40 / 52, 1 / 2, 1 / 2])
    assert official["ap_r"] == official["ap_h"] == 1 and strict["ap_r"] == strict["ap_h"] == 0.5
    assert official["ap_p"] == strict["ap_p"] == 0.5
    assert official["images_without_prediction"] == strict["images_without_prediction"] == 1


def test_an_absent_class_is_zero_in_official_and_skipped_in_strict():
    images = [Truth(CATEGORY, HUMAN)], [[person(LEFT, classes=4), person(RIGHT, classes=4)]]
    official = evaluate_parsing(*images, num_classes=4)
    strict = evaluate_parsing(*images, num_classes=4, protocol="strict")
    assert official["miou"] == pytest.approx(3 / 4) and official["mean_accuracy"] == pytest.approx(3 / 4)
    assert official["ap_r"] == pytest.approx(2 / 3) and official["iou"][3] == 0
    assert strict["miou"] == strict["mean_accuracy"] == strict["ap_r"] == 1 and np.isnan(strict["iou"][3])


def test_nan_scores():
    # a NaN prediction covers the good one: on top and first in official, below and last in strict
    wrong = np.where(LEFT > 0, 3 - LEFT, 0).astype(np.uint8)  # the classes swapped
    images = [Truth(LEFT, (LEFT > 0).astype(np.uint8))], [[person(LEFT, 0.9), person(wrong, np.nan)]]
    options = {"num_classes": 3, "nms_threshold": 1.0}
    official = evaluate_parsing(*images, **options)
    strict = evaluate_parsing(*images, protocol="strict", **options)
    assert official["ap_r"] == 0 and official["iou"][1] == 0
    assert strict["ap_r"] == 1 and strict["miou"] == 1
    assert official["ap_p"] == strict["ap_p"] == 1  # last in AP^p under both
    scores = np.array([0.5, np.nan, 0.7])
    assert ranking(scores).tolist() == [2, 0, 1] and ranking(scores, nan_first=True).tolist() == [1, 2, 0]
    assert ranking(np.array([9.5, 10.5, 0.98]), as_text=True).tolist() == [0, 1, 2]


@pytest.mark.parametrize("protocol, expected", [("official", 254 / 255), ("strict", 1)])
def test_regions_beyond_an_eight_bit_map_are_lost_in_official(protocol, expected):
    human = np.arange(256, dtype=np.uint8).reshape(16, 16)  # 255 people of one pixel
    labels = [(human == i).astype(np.uint8) for i in range(1, 256)]
    people = [person(m, 1 - i / 1000, classes=2) for i, m in enumerate(labels)]
    truth = Truth((human > 0).astype(np.uint8), human)
    report = evaluate_parsing([truth], [people], num_classes=2, protocol=protocol, nms_threshold=1.0)
    assert report["ap_r"] == pytest.approx(expected)


GOOD = Truth(CATEGORY, HUMAN)


@pytest.mark.parametrize(
    "truth, prediction, message",
    [
        (GOOD, person(LEFT[:2]), "differ in shape (expected (4, 8), got (2, 8))"),
        (GOOD, person(LEFT.astype(np.int64)), "expected uint8, got int64"),
        (GOOD, person(LEFT + np.uint8(5)), "expected 0..2, got 7"),
        (GOOD, person(LEFT, classes=4), "part_pixel_scores have the wrong length (expected (2,)"),
        (GOOD, person(LEFT, roi=(4, 0, 12, 4)), "roi leaves the image"),
        (GOOD, person(LEFT, roi=(0, 0, 3, 4)), "differ in shape (expected (4, 3), got (4, 8))"),
        (Truth(CATEGORY, HUMAN[:2]), person(LEFT), "category and human differ in shape"),
        (Truth(CATEGORY.astype(np.int32), HUMAN), person(LEFT), "category has the wrong dtype"),
        (Truth(CATEGORY, HUMAN / 2), person(LEFT), "human has the wrong dtype"),
        (Truth(CATEGORY[None], HUMAN[None]), person(LEFT), "expected (H, W)"),
        (Truth(CATEGORY, HUMAN, HUMAN), person(LEFT), "parts need a part_table"),
        (Truth(CATEGORY, HUMAN, HUMAN, np.zeros((1, 2), int)), person(LEFT), "part id, class, human id, got (1, 2)"),
        (Truth(CATEGORY, HUMAN, HUMAN[:2], np.zeros((1, 3), int)), person(LEFT), "category and parts differ"),
        (Truth(CATEGORY, HUMAN, HUMAN / 2, np.zeros((1, 3), int)), person(LEFT), "parts has the wrong dtype"),
        (Truth(CATEGORY, HUMAN, -HUMAN.astype(int), np.zeros((1, 3), int)), person(LEFT), "part id is out of range"),
    ],
)
def test_errors_name_the_image_and_what_was_expected(truth, prediction, message):
    evaluator = ParsingEvaluator(3)
    evaluator.add(GOOD, [person(LEFT)])
    with pytest.raises(QanetError) as error:
        evaluator.add(truth, [prediction])
    assert message in str(error.value) and "image 1" in str(error.value)


def test_errors_of_arguments():
    with pytest.raises(QanetError, match="unknown evaluation protocol 'coco' .expected official or strict"):
        evaluate_parsing([], [], num_classes=3, protocol="coco")
    with pytest.raises(QanetError, match="expected 2..255"):
        ParsingEvaluator(1)
    with pytest.raises(QanetError, match="image 1 has no list of predictions"):
        evaluate_parsing([GOOD, GOOD], [[]], num_classes=3)
    with pytest.raises(QanetError, match="image 0 has no ground truth"):
        evaluate_parsing([], [[]], num_classes=3)
    with pytest.raises(QanetError, match="QAM weights"):
        evaluate_parsing([GOOD], [[person(LEFT)]], num_classes=3, weights=(0, 0, 0))
