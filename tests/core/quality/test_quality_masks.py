"""Masks and their scores against the official code's numbers, and against the definition on a crop pasted 1:1."""

import json
import tracemalloc

import numpy as np
import pytest

from qanet.errors import QanetError
from qanet.quality import UPSAMPLE, mask_score, probability_score
from qanet.quality.sampling import sample_columns, sample_rows, upsample_taps

CASES = ["m01_basic", "m02_flip"]


def test_every_golden_case_is_tested(golden):
    records = [json.loads(line) for line in (golden / "index.json").read_text().splitlines()]
    assert sorted(r["name"] for r in records if r["kind"] == "mask_pixel_score") == CASES


@pytest.mark.parametrize("name", CASES)
def test_masks_equal_the_official_code(golden, name):
    with np.load(golden / "mask_pixel_score" / f"{name}.npz") as arrays:
        case = dict(arrays)
    flipped = case["logits_flip"].astype(np.float32) if "logits_flip" in case else None
    height, width = case["image_hw"].tolist()
    scored = mask_score(
        case["logits"].astype(np.float32), case["boxes_xyxy"], (height, width), float(case["threshold"]), flipped
    )
    for index, expected in enumerate(case["masks"]):
        sure = case["ambiguous"][index] == 0
        assert np.array_equal(scored.full(index)[sure], expected[sure])
    np.testing.assert_allclose(scored.pixel_scores, case["mask_pixel_scores"], rtol=0, atol=1e-6)


def test_counts_by_hand_where_the_crop_is_the_image():
    logits = np.full((1, 1, 2, 1), -20, np.float32)  # an 8 x 4 crop, of which the upper half is certain
    logits[0, 0, 0] = 20
    scored = mask_score(logits, [[0, 0, 4, 8]], (8, 4))
    rows = np.clip((np.arange(8) + 0.5) / 4 - 0.5, 0, 1)  # 20 - 40 * row: no row within the thresholds' reach of 0
    assert np.array_equal(scored.full(0), np.repeat((rows < 0.5)[:, None], 4, 1))
    assert scored.pixel_scores.tolist() == [1.0]


def test_an_undecided_mask_scores_nothing():
    scored = mask_score(np.zeros((1, 1, 2, 2), np.float32), [[0, 0, 8, 8]], (8, 8))
    assert scored.full(0).all() and scored.pixel_scores.tolist() == [0.0]  # p = 0.5: in the mask, never certain


def test_regions_are_all_that_is_computed():
    tracemalloc.start()
    scored = mask_score(np.zeros((1, 1, 32, 24), np.float32), [[2000, 1500, 2060, 1580]], (3000, 4000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert scored.masks[0].shape <= (82, 62) and peak < 3e6  # bytes


def test_a_large_region_is_scored_in_bands_that_do_not_show():
    logits = np.random.default_rng(0).normal(0, 3, (1, 1, 8, 8)).astype(np.float32)
    whole = mask_score(logits, [[0, 0, 640, 640]], (640, 640)).full(0)
    strips = [mask_score(logits, [[-x, 0, 640 - x, 640]], (640, 64)).full(0) for x in range(0, 640, 64)]
    assert np.array_equal(whole, np.concatenate(strips, 1))


def test_nobody_outside_and_huge_logits():
    assert mask_score(np.zeros((0, 1, 8, 6), np.float32), [], (50, 40)).masks == []
    outside = mask_score(np.zeros((1, 1, 8, 6), np.float32), [[-90, -90, -40, -40]], (50, 40))
    assert outside.pixel_scores[0] == 0 and not outside.full(0).any()
    with np.errstate(all="raise", under="ignore"):
        huge = mask_score(np.array([[[[-3e38, 3e38]]]], np.float32), [[0, 0, 8, 4]], (4, 8))
    assert huge.full(0)[0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1] and huge.pixel_scores[0] == 1


LOGITS = np.zeros((1, 1, 8, 6), np.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logits": LOGITS[0]}, r"logits do not fit.*got float32 \(1, 8, 6\)"),
        ({"logits": np.zeros((1, 2, 8, 6), np.float32)}, r"floats \(N, 1, h, w\)"),
        ({"logits": LOGITS.astype(int)}, "got int64"),
        ({"logits": LOGITS + np.nan}, "logits are not finite"),
        ({"flipped_logits": LOGITS - np.inf}, "flipped_logits are not finite"),
        ({"flipped_logits": LOGITS[:, :, :4]}, "flipped_logits do not fit"),
        ({"boxes": []}, "boxes do not fit"),
        ({"image_size": (0, 8)}, "image_size"),
        ({"threshold": 0}, "0 < t <= 0.5, got 0"),
        ({"threshold": 0.6}, "got 0.6"),
        ({"threshold": float("nan")}, "got nan"),
    ],
)
def test_bad_arguments_are_named(change, message):
    with pytest.raises(QanetError, match=message):
        mask_score(**({"logits": LOGITS, "boxes": [[0, 0, 10, 20]], "image_size": (32, 24)} | change))


def upsampled_probability(logits):
    """(N, 1, h, w) logits -> (N, 4h, 4w) probabilities, as the definition has them before the paste."""
    taps = [upsample_taps(np.arange(size * UPSAMPLE), size) for size in logits.shape[2:]]
    full = [sample_columns(sample_rows(maps, taps[0]), taps[1])[0] for maps in logits]
    return np.asarray(1 / (1 + np.exp(-np.stack(full))), np.float32)


def test_probabilities_score_as_the_logits_they_come_from():
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 3, (5, 1, 7, 6)).astype(np.float32)
    corner = rng.uniform(-30, 60, (5, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(3, 70, (5, 2))], 1)
    expected = mask_score(logits, boxes, (80, 90))
    scored = probability_score(upsampled_probability(logits), boxes, (80, 90))
    assert np.array_equal(scored.rois, expected.rois)
    assert np.array_equal(scored.pixel_scores, expected.pixel_scores) and scored.pixel_scores.max() > 0
    for index in range(5):
        assert np.array_equal(scored.full(index), expected.full(index))


def test_a_map_laid_pixel_on_pixel_is_counted_by_hand():
    probabilities = np.array([[[0.1, 0.3, 0.5], [0.8, 0.75, 0.2]]], np.float32)
    scored = probability_score(probabilities, [[2, 1, 5, 3]], (6, 8))
    expected = np.zeros((6, 8))
    expected[1, 4] = expected[2, 2] = expected[2, 3] = 1
    assert np.array_equal(scored.full(0), expected)
    assert scored.pixel_scores.tolist() == [np.float32(2 / 4)]  # 0.8 and 0.75, of 0.3, 0.5, 0.8, 0.75


def test_a_map_is_faded_out_half_a_map_pixel_around_its_box():
    scored = probability_score(np.ones((1, 2, 2), np.float32), [[10, 10, 30, 30]], (40, 40))
    x0, y0, x1, y1 = scored.rois[0]
    assert (x0, y0, x1, y1) == (5, 5, 35, 35)  # half of a map pixel of 10
    across = scored.full(0)[20]  # p is 1 up to 5 pixels inside the box, 0.5 at its edge, 0 from 5 pixels outside on
    assert across[10:30].all() and not across[:10].any() and not across[30:].any()


MAPS = np.full((1, 28, 28), 0.5, np.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probabilities": MAPS[0]}, r"probabilities do not fit.*got float32 \(28, 28\)"),
        ({"probabilities": (255 * MAPS).astype(np.uint8)}, "got uint8"),
        ({"probabilities": MAPS * 3}, r"out of range .expected 0 to 1 \(after the sigmoid\), got 1.5 to 1.5"),
        ({"probabilities": -MAPS}, "got -0.5 to -0.5"),
        ({"probabilities": MAPS + np.nan}, "not finite"),
        ({"probabilities": MAPS[:, :0]}, "an empty map"),
        ({"boxes": [[0, 0, 0, 5]]}, "is empty"),
        ({"threshold": 0.51}, "0 < t <= 0.5"),
        ({"image_size": (0, 3)}, "image_size"),
    ],
)
def test_bad_probabilities_are_named(change, message):
    with pytest.raises(QanetError, match=message):
        probability_score(**({"probabilities": MAPS, "boxes": [[0, 0, 10, 20]], "image_size": (32, 24)} | change))
