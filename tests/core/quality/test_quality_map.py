"""Quality maps: the fit by hand and against a brute force, what a manifest may hold, and which map a graph gets."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qanet.errors import QanetError
from qanet.quality.quality_map import Curve, QualityMap, fit_curve, map_of

LINE = Curve((0.0, 1.0), (0.0, 0.8))
GOOD = QualityMap((0.0, 0.5, 3.0), Curve((0.5, 0.9), (0.2, 0.6)), LINE)


def test_a_fit_finds_a_curve_of_its_own_kind():
    true = Curve((0.4, 0.7, 1.0), (0.1, 0.2, 0.9))
    scores = np.linspace(0.4, 1.0, 301)
    fitted = fit_curve(scores, true(scores), knots=3)
    np.testing.assert_allclose(fitted.expected, true.expected, atol=1e-3)


def test_no_curve_on_a_grid_is_better_than_the_fit():
    rng = np.random.default_rng(0)
    scores = rng.random(60)
    truth = 0.5 - 0.3 * scores + 0.5 * (scores > 0.6) + rng.normal(0, 0.05, 60)  # it falls at first
    fitted = fit_curve(scores, truth, knots=3)
    error = np.square(fitted(scores) - truth).sum()
    levels = np.linspace(0, 1, 26)
    others = [Curve(fitted.scores, v) for v in itertools.combinations_with_replacement(levels, 3)]
    assert error <= min(np.square(other(scores) - truth).sum() for other in others) + 1e-6


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=5, max_size=40))
def test_a_fit_never_falls_and_stays_a_share(pairs):
    scores, truth = np.array(pairs).T
    expected = fit_curve(scores, truth)(np.linspace(-1, 2, 50))
    assert (np.diff(expected) >= -1e-6).all() and expected.min() >= 0 and expected.max() <= 1


def test_what_is_not_finite_is_left_out_and_too_little_is_refused():
    scores = np.array([0.1, 0.3, 0.5, 0.7, 0.9, np.nan, 0.5])
    truth = np.array([0.1, 0.3, 0.5, 0.7, 0.9, 0.5, np.inf])
    assert fit_curve(scores, truth)(0.5) == pytest.approx(0.5, abs=1e-3)
    with pytest.raises(QanetError, match="too few people.*expected 5 or more, got 1"):
        fit_curve([0.5, np.nan], [0.5, 0.5])
    assert fit_curve([0.5] * 6, [0.2, 0.4] * 3)([0.1, 0.9]) == pytest.approx([0.3, 0.3])  # one score alone


def test_parts_without_a_pixel_are_worth_nothing():
    values = GOOD.expected_part_iou([1.0], [1.0], [[0.0, 1.0]])
    assert values.tolist() == [[0.0, pytest.approx(0.8)]] and values.dtype == np.float32
    assert GOOD.expected_miou([1.0], [np.nan], [0.9])[0] == pytest.approx(0.2)


def test_a_map_survives_json():
    assert QualityMap.from_json(json.loads(json.dumps(GOOD.to_json() | {"fitted_on": "x"}))) == GOOD


@pytest.mark.parametrize(
    "change",
    [
        {"people": [[0.5, 0.9], [0.6, 0.2]]},
        {"people": [[0.9, 0.5], [0.2, 0.6]]},
        {"people": [[0.5, 0.9], [0.2]]},
        {"parts": [[0.1, float("nan")], [0.1, 0.2]]},
        {"parts": [[], []]},
        {"people": 100},
        {"weights": [1, 2]},
        {"parts": None},
    ],
)
def test_a_map_that_cannot_be_used_is_refused(change):
    with pytest.raises(QanetError, match="bad quality_map"):
        QualityMap.from_json(GOOD.to_json() | change)


def test_a_graph_gets_its_own_map_or_that_of_its_precision():
    maps = {"fp32": GOOD.to_json(), "int8": QualityMap((0, 1, 1), LINE, LINE).to_json()}
    assert [map_of(maps, g) == GOOD for g in ("fp32", "fp16", "bf16", "int8", "int8-no-vnni")] == [True] * 3 + [
        False
    ] * 2
    assert (
        map_of(maps, "int8-no-vnni").weights == (0, 1, 1) and map_of(maps, "fp8") is None and map_of({}, "fp32") is None
    )
