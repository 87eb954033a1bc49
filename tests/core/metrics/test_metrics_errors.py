"""What the metrics refuse, and what they say about it."""

import numpy as np
import pytest
from metric_cases import CATEGORY, HUMAN, LEFT, person

from qanet.errors import QanetError
from qanet.metrics import ParsingEvaluator, Truth, evaluate_parsing

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
