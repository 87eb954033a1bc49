"""The pixel score kernels under emulation against qanet.quality, and against the definition in float64."""

import json

import numpy as np
import pytest
from cuda_emulation.calls import score
from cuda_emulation.cases import SHAPES, check_definition, load_golden
from golden_cases import PIXEL_SCORE_CASES

from qanet.quality import pixel_score


def test_every_golden_case_is_tested(golden):
    records = [json.loads(line) for line in (golden / "index.json").read_text().splitlines()]
    assert sorted(r["name"] for r in records if r["kind"] == "pixel_score") == PIXEL_SCORE_CASES


@pytest.mark.parametrize("name", PIXEL_SCORE_CASES)
def test_the_kernel_equals_the_official_code(golden, emulated, name):
    case, image_hw, views = load_golden(golden, name)
    logits = case["logits"].astype(np.float32)
    got = score(emulated("pixel_score"), logits, case["boxes_xyxy"], image_hw, float(case["threshold"]), **views)
    for index, expected in enumerate(case["labels"]):
        sure = case["ambiguous"][index] == 0
        assert np.array_equal(got.full(index)[sure], expected[sure])
    np.testing.assert_allclose(got.pixel_scores, case["instance_pixel_scores"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(got.part_scores, case["category_pixel_scores"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["p01_single_inside", "p08_huge_logits", "p09_flip_cihp", "p13_outside"])
def test_fp16_logits_equal_the_reference_on_the_same_logits(golden, emulated, name):
    case, image_hw, views = load_golden(golden, name)
    views = {k: v.astype(np.float16) if k == "flipped" else v for k, v in views.items()}
    logits, boxes = case["logits"].astype(np.float16), case["boxes_xyxy"]
    assert np.isfinite(logits).all()
    got = score(emulated("pixel_score"), logits, boxes, image_hw, float(case["threshold"]), **views)
    check_definition(got, logits, boxes, float(case["threshold"]), **views)


@pytest.mark.parametrize("flip", [False, True], ids=["upright", "flip"])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_kernel_equals_the_definition(emulated, shape, flip):
    classes, map_hw, image_hw, boxes = SHAPES[shape]
    random = np.random.default_rng(7)
    logits, flipped = random.normal(0, 3, (2, len(boxes), classes, *map_hw)).astype(np.float32)
    views = {"flipped": flipped, "flip_classes": random.permutation(classes)} if flip else {}
    boxes = np.array(boxes, np.float32)
    got = score(emulated("pixel_score"), logits, boxes, image_hw, **views)
    check_definition(got, logits, boxes, 0.2, **views)


def test_regions_are_those_of_the_reference(emulated):
    classes, map_hw, image_hw, boxes = SHAPES["five"]
    logits = np.random.default_rng(0).normal(0, 3, (5, classes, *map_hw)).astype(np.float32)
    got, expected = score(emulated("pixel_score"), logits, boxes, image_hw), pixel_score(logits, boxes, image_hw)
    assert np.array_equal(got.rois, expected.rois) and got.labels[2].size == 0
    np.testing.assert_allclose(got.pixel_scores, expected.pixel_scores, rtol=0, atol=1e-5)
    assert got.pixel_scores[2] == 0 and not got.part_scores[2].any()


@pytest.mark.parametrize("suffix", ["f32", "f16"])
def test_the_result_is_the_same_in_any_order_of_threads(emulated, suffix):
    classes, map_hw, image_hw, boxes = SHAPES["five"]
    kind = np.float16 if suffix == "f16" else np.float32
    logits, flipped = np.random.default_rng(1).normal(0, 3, (2, 5, classes, *map_hw)).astype(kind)
    runs = [
        score(emulated("pixel_score"), logits, boxes, image_hw, flipped=flipped, flip_classes=range(classes), **how)
        for how in ({}, {"schedule": 1, "guard_before": True}, {"schedule": 5, "spare_tiles": 3})
    ]
    for other in runs[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(runs[0].labels, other.labels))
        assert runs[0].pixel_scores.tobytes() == other.pixel_scores.tobytes()
        assert runs[0].part_scores.tobytes() == other.part_scores.tobytes()


def test_the_smallest_pool_gives_the_same_labels(emulated):
    classes, map_hw, image_hw, boxes = SHAPES["shrunk_much"]
    logits = np.random.default_rng(2).normal(0, 3, (1, classes, *map_hw)).astype(np.float32)
    got = score(emulated("pixel_score"), logits, boxes, image_hw, pool_floats=1024, guard_before=True)
    check_definition(got, logits, np.array(boxes), 0.2)


@pytest.mark.parametrize("kind", [np.float32, np.float16])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_logit_that_is_not_finite_flags_its_person_and_view(emulated, kind, value):
    """Wherever it lies: also in a person outside the image, and where no pixel samples it."""
    shape, boxes = (4, 3, 9, 7), [[0, 0, 28, 36], [-400, 0, -300, 90], [-20, -20, 6, 6], [1, 2, 20, 30]]
    expected, flags = [1, 2, 3, 0], np.zeros(4, np.uint32)
    views = [np.random.default_rng(9).normal(0, 3, shape).astype(kind) for _ in range(2)]
    for bit, logits in enumerate(views):
        for person, marks in enumerate(expected):
            if marks >> bit & 1:
                logits[person, person % 3, 0, 0] = value  # in person 2 the crop's corner, beyond the image
    for schedule in (0, 1):
        score(
            emulated("pixel_score"),
            views[0],
            boxes,
            (40, 30),
            flipped=views[1],
            flip_classes=[0, 2, 1],
            flags_out=flags,
            schedule=schedule,
        )
        assert flags.tolist() == expected


def test_the_greatest_finite_numbers_are_not_flagged(emulated):
    for kind in (np.float32, np.float16):
        limits = np.finfo(kind)
        logits = np.resize(np.array([limits.max, limits.min, limits.tiny, -0.0], kind), (2, 3, 8, 6))
        got = score(emulated("pixel_score"), logits, [[0, 0, 24, 32], [3, 4, 20, 20]], (32, 24))
        assert np.isfinite(got.pixel_scores).all() and np.isfinite(got.part_scores).all()
