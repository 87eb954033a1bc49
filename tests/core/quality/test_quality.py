"""Pixel score and QAM against the official code's numbers, and against the definition written out in float64."""

import json
import tracemalloc

import numpy as np
import pytest
from golden_cases import PIXEL_SCORE_CASES, assert_golden, read_case
from hypothesis import given, settings
from hypothesis import strategies as st

from qanet.errors import QanetError
from qanet.quality import check_arguments, clamp_iou, fuse_quality, pixel_score, region_of, unflip


def test_every_golden_case_is_tested(golden):
    records = [json.loads(line) for line in (golden / "index.json").read_text().splitlines()]
    assert sorted(r["name"] for r in records if r["kind"] == "pixel_score") == PIXEL_SCORE_CASES


@pytest.mark.parametrize("name", PIXEL_SCORE_CASES)
def test_pixel_score_equals_the_official_code(golden, name):
    arguments, case = read_case(golden, name)
    assert_golden(pixel_score(**arguments), case)


def test_fusion_equals_the_official_code_with_its_nans(golden):
    with np.load(golden / "qam" / "q01.npz") as case:
        for row, weights in enumerate(case["weights"]):
            whole = fuse_quality(case["box"], case["iou"], case["pixel"], tuple(weights))
            parts = fuse_quality(case["box"][:, None], case["iou"][:, None], case["category_pixel"], tuple(weights))
            np.testing.assert_allclose(whole, case["instance_scores"][row], rtol=0, atol=1e-6)
            np.testing.assert_allclose(parts, case["part_scores"][row], rtol=0, atol=1e-6)
        assert np.isnan(case["instance_scores"]).any()  # the case has the edge values that it is for


def brute_force(logits, box, image_hw, threshold):
    """The definition, pixel by pixel, in float64: labels (H, W), the C scores, and each pixel's two best."""
    num_classes, h, w = logits.shape
    crop = np.zeros((num_classes, 4 * h, 4 * w))
    for y, x in np.ndindex(4 * h, 4 * w):
        v, u = np.clip((y + 0.5) / 4 - 0.5, 0, h - 1), np.clip((x + 0.5) / 4 - 0.5, 0, w - 1)
        j, i = int(v), int(u)
        j1, i1 = min(j + 1, h - 1), min(i + 1, w - 1)
        top = logits[:, j, i] * (1 - u + i) + logits[:, j, i1] * (u - i)
        crop[:, y, x] = top * (1 - v + j) + (logits[:, j1, i] * (1 - u + i) + logits[:, j1, i1] * (u - i)) * (v - j)
    crop = np.exp(crop - crop.max(0))
    crop /= crop.sum(0)
    pasted = np.zeros((num_classes, *image_hw))
    x0, y0, x1, y1 = (float(value) for value in box)
    for y, x in np.ndindex(*image_hw):
        v, u = (y + 0.5 - y0) / (y1 - y0) * 4 * h - 0.5, (x + 0.5 - x0) / (x1 - x0) * 4 * w - 0.5
        for j, i in ((np.floor(v) + a, np.floor(u) + b) for a in (0, 1) for b in (0, 1)):
            if 0 <= j < 4 * h and 0 <= i < 4 * w:
                pasted[:, y, x] += crop[:, int(j), int(i)] * (1 - abs(v - j)) * (1 - abs(u - i))
    best, winner = pasted.max(0), pasted.argmax(0)
    certain = best >= threshold
    chosen = [best[certain & (winner == c)] for c in range(num_classes)]
    scores = [values.mean() if values.size else 0 for values in chosen]
    scores[0] = best[certain].mean() if certain.any() else 0
    return np.where(best >= 1 / num_classes, winner, 0), np.array(scores), np.sort(pasted, 0)[::-1]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_classes=st.integers(2, 5),
    map_hw=st.tuples(*[st.integers(1, 4)] * 2),
    image_hw=st.tuples(*[st.integers(1, 12)] * 2),
    corner=st.tuples(*[st.floats(-14, 14, width=32)] * 2),
    size=st.tuples(*[st.floats(0.3125, 40, width=32)] * 2),
    threshold=st.sampled_from([0.0, 0.2, 0.45, 0.6]),
)
def test_pixel_score_equals_the_definition(seed, num_classes, map_hw, image_hw, corner, size, threshold):
    logits = np.random.default_rng(seed).normal(0, 2, (1, num_classes, *map_hw)).astype(np.float32)
    box = np.array([[*corner, corner[0] + size[0], corner[1] + size[1]]], np.float32)
    labels, scores, ordered = brute_force(logits[0].astype(np.float64), box[0], image_hw, threshold)
    near = (ordered[0] - ordered[1] < 1e-4) | (abs(ordered[0] - 1 / num_classes) < 1e-4)
    got = pixel_score(logits, box, image_hw, threshold)
    assert np.array_equal(got.full(0)[~near], labels[~near])
    if not (near & (ordered[0] > 0)).any() and not (abs(ordered[0] - threshold) < 1e-4).any():
        np.testing.assert_allclose([got.pixel_scores[0], *got.part_scores[0]], scores, atol=2e-5)
    x0, y0, x1, y1 = got.rois[0]
    outside = np.ones(image_hw, bool)
    outside[y0:y1, x0:x1] = False
    assert not ordered[0][outside].any()  # nothing that the crop touches lies outside the region


def test_a_small_person_in_a_large_image_costs_little_memory():
    logits = np.zeros((1, 20, 32, 24), np.float32)
    box = np.array([[2000, 1500, 2060, 1580]], np.float32)
    tracemalloc.start()
    pixel_score(logits, box, (3000, 4000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12e6 < 3000 * 4000 * 20 * 4 / 50  # bytes


def test_a_person_who_fills_a_large_image_is_scored_in_bands():
    logits = np.random.default_rng(0).normal(0, 1, (1, 20, 16, 12)).astype(np.float32)
    tracemalloc.start()
    scored = pixel_score(logits, [[0, 0, 2000, 1500]], (1500, 2000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert scored.labels[0].shape == (1500, 2000)
    assert peak < 1500 * 2000 * 20 * 4 / 8  # bytes; the (C, H, W) array alone would be eight times that


def test_bands_do_not_show():
    logits = np.random.default_rng(1).normal(0, 2, (1, 6, 8, 8)).astype(np.float32)
    whole = pixel_score(logits, [[0, 0, 640, 640]], (640, 640)).full(0)  # many bands
    columns = [pixel_score(logits, [[-x, 0, 640 - x, 640]], (640, 8)).full(0) for x in range(0, 640, 8)]  # one each
    assert np.array_equal(whole, np.concatenate(columns, 1))


def test_nobody_gives_nothing():
    scored = pixel_score(np.zeros((0, 4, 8, 6), np.float32), [], (50, 40))
    assert scored.labels == [] and scored.rois.shape == (0, 4) and scored.part_scores.shape == (0, 3)


def test_a_box_wholly_outside_scores_zero():
    scored = pixel_score(np.zeros((1, 4, 8, 6), np.float32), [[-90, -90, -40, -40]], (50, 40))
    assert scored.pixel_scores[0] == 0 and scored.labels[0].size == 0 and not scored.full(0).any()


@pytest.mark.parametrize("kind", [np.float16, np.float64, "strided"])
def test_other_layouts_of_logits_give_the_same(kind):
    logits = np.random.default_rng(2).normal(0, 2, (2, 5, 8, 6)).astype(np.float16).astype(np.float32)
    boxes = [[3, 4, 40, 60], [-5, 10, 20, 44]]
    other = logits.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2) if kind == "strided" else logits.astype(kind)
    expected, got = pixel_score(logits, boxes, (64, 48)), pixel_score(other, boxes, (64, 48))
    assert all(np.array_equal(a, b) for a, b in zip(expected.labels, got.labels))
    assert np.array_equal(expected.part_scores, got.part_scores)


def test_huge_logits_do_not_overflow():
    logits = np.full((1, 3, 8, 6), -1e30, np.float32)
    logits[0, 2] = 1e30
    with np.errstate(over="raise", invalid="raise"):
        scored = pixel_score(logits, [[0, 0, 24, 32]], (32, 24))
    assert (scored.full(0) == 2).all() and scored.part_scores[0].tolist() == [0, 1]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
@pytest.mark.parametrize("argument", ["logits", "flipped_logits"])
def test_logits_that_are_not_finite_are_refused_by_name(argument, value):
    arguments = {"logits": np.zeros((1, 3, 8, 6)), "boxes": [[0, 0, 24, 32]], "image_size": (32, 24)}
    arguments[argument] = np.zeros((1, 3, 8, 6))
    arguments[argument][0, 1, 7, 5] = value
    with pytest.raises(QanetError, match=rf"^{argument} are not finite.*got 1 nan or infinite"):
        pixel_score(**arguments)


LOGITS, BOX = np.zeros((1, 3, 8, 6), np.float32), [[0, 0, 10, 20]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boxes": [[np.nan, 0, 10, 20]]}, "not finite"),
        ({"boxes": [[10, 0, 0, 20]]}, "x0 < x1"),
        ({"boxes": [[0, 0, 10, 0]]}, "y0 < y1"),
        ({"boxes": []}, r"expected \(1, 4\), got \(0, 4\)"),
        ({"boxes": [BOX[0]] * 2}, "boxes do not fit"),
        ({"boxes": [["a", 0, 1, 1]]}, "not numbers"),
        ({"boxes": [[0, 1, 2]]}, "boxes do not fit"),
        ({"logits": LOGITS[:, :1]}, "number of classes.*got 1"),
        ({"logits": np.zeros((1, 300, 2, 2), np.float32)}, "2 to 256, got 300"),
        ({"logits": LOGITS.astype(np.int32)}, "floats .*got int32"),
        ({"logits": LOGITS[0]}, r"got float32 \(3, 8, 6\)"),
        ({"logits": LOGITS[:, :, :0]}, "empty map"),
        ({"image_size": (0, 4)}, "image_size"),
        ({"threshold": 1.0}, "0 <= T < 1, got 1.0"),
        ({"threshold": float("nan")}, "got nan"),
        ({"flipped_logits": LOGITS[:, :2]}, "flipped_logits do not fit"),
    ],
)
def test_bad_arguments_are_named(change, message):
    arguments = {"logits": LOGITS, "boxes": BOX, "image_size": (32, 24)} | change
    with pytest.raises(QanetError, match=message):
        pixel_score(**arguments)


@pytest.mark.parametrize("weights", [(0, 0, 0), (1, 2), (-1, 0, 0)])
def test_weights_without_a_positive_sum_are_refused(weights):
    with pytest.raises(QanetError, match="QAM weights"):
        fuse_quality(1, 1, 1, weights)


def test_clamped_iou_lies_between_zero_and_one():
    assert clamp_iou([-0.5, 0.25, 1.5, np.nan, np.inf, -np.inf]).tolist() == [0, 0.25, 1, 0, 1, 0]


def test_unflip_mirrors_and_swaps():
    maps = np.arange(24, dtype=np.float32).reshape(1, 3, 2, 4)
    assert np.array_equal(unflip(maps, [(1, 2)]), maps[:, [0, 2, 1], :, ::-1])
    assert np.array_equal(unflip(unflip(maps, [(1, 2)]), [(1, 2)]), maps)


def test_a_region_is_the_box_and_half_a_crop_pixel():
    # 16 crop pixels over 32 image pixels: half a crop pixel is one image pixel, and its far edge is not reached.
    assert region_of([10, 10, 42, 42], (4, 4), (100, 100)) == (9, 9, 43, 43)
    assert region_of([10, 10, 42, 42], (4, 4), (20, 20)) == (9, 9, 20, 20)


def test_arguments_are_not_changed():
    logits = np.random.default_rng(3).normal(size=(1, 3, 8, 6)).astype(np.float32)
    before = logits.copy()
    pixel_score(logits, BOX, (32, 24))
    assert np.array_equal(logits, before)
    assert check_arguments(logits, BOX, (32, 24), 0.2)[1].dtype == np.float32
