"""The PyTorch baseline gives the official code's labels and scores, and those of the reference."""

import numpy as np
import pytest
from golden_cases import PIXEL_SCORE_CASES, assert_golden, read_case

from qanet.errors import QanetError
from qanet.export.baseline import pixel_score
from qanet.quality import pixel_score as reference


@pytest.mark.parametrize("name", PIXEL_SCORE_CASES)
def test_it_equals_the_official_code(golden, name):
    arguments, case = read_case(golden, name)
    assert_golden(pixel_score(**arguments), case)


def test_its_labels_are_of_the_whole_image():
    logits = np.random.default_rng(0).normal(0, 2, (2, 5, 8, 6)).astype(np.float32)
    boxes = [[10, 5, 30, 40], [-4, -4, 20, 20]]
    got, expected = pixel_score(logits, boxes, (48, 64)), reference(logits, boxes, (48, 64))
    assert got.rois.tolist() == [[0, 0, 64, 48]] * 2 and [m.dtype for m in got.labels] == [np.uint8] * 2
    for index in range(2):
        assert (got.full(index) != expected.full(index)).mean() < 1e-3
    np.testing.assert_allclose(got.pixel_scores, expected.pixel_scores, atol=1e-5)


def test_nobody_and_bad_arguments():
    assert pixel_score(np.zeros((0, 4, 8, 6), np.float32), [], (50, 40)).labels == []
    with pytest.raises(QanetError, match="flipped_logits are not finite"):
        logits = np.zeros((1, 3, 8, 6), np.float32)
        pixel_score(logits, [[0, 0, 8, 8]], (9, 9), flipped_logits=logits + np.nan)
