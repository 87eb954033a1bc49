"""Metrics against the numbers, maps and survivors of the official code."""

import json

import numpy as np
import pytest

from qanet.metrics import PROTOCOLS, Prediction, Truth, evaluate_parsing
from qanet.metrics.people import crop_person, published_nms
from qanet.metrics.regions import ascending, paint_instances, paint_semantic
from qanet.quality import fuse_quality

CASES = [
    "d01_mild",
    "d02_drop_fp",
    "d03_split_dup_nonms",
    "d04_nms_bug",
    "d05_nopred_absent",
    "d06_perfect",
    "d07_void",
]
# golden array -> key of the report
KEYS = {
    "IoU": "iou",
    "mIoU": "miou",
    "PixelACC": "pixel_accuracy",
    "MeanACC": "mean_accuracy",
    "thresholds": "thresholds",
    "APp": "ap_p_per_threshold",
    "APp_mean": "ap_p",
    "APp50": "ap_p_50",
    "PCP": "pcp_per_threshold",
    "PCP50": "pcp_50",
    "APr": "ap_r_per_threshold",
    "APr_mean": "ap_r",
    "APr50": "ap_r_50",
    "APr_per_class": "ap_r_per_class",
    "APh": "ap_h_per_threshold",
    "APh_thresholds": "human_thresholds",
}


def load_golden(golden, name):
    """A case's record in index.json and its arrays; skips where there is none."""
    lines = (golden / "index.json").read_text().splitlines()
    records = [json.loads(line) for line in lines if line.strip()]
    record = next((r for r in records if r["kind"] == "metrics" and r["name"] == name), None)
    if record is None or not (golden / record["file"]).is_file():
        pytest.skip(f"golden case {name} is not in {golden.name}/")
    with np.load(golden / record["file"]) as arrays:
        return record, dict(arrays)


def golden_images(record, arrays, *, with_parts=True):
    """The truths and the lists of predictions of a golden case."""
    truths, predictions = [], []
    lines = arrays["gt_instance_lines"]
    for image in range(record["I"]):
        parts = (arrays["gt_instance"][image], lines[lines[:, 0] == image, 1:]) if with_parts else ()
        truths.append(Truth(arrays["gt_category"][image], arrays["gt_human"][image], *parts))
        predictions.append(
            [
                Prediction(
                    *(
                        arrays[f"pred_{key}"][i]
                        for key in ("labels", "box_score", "iou_score", "pixel_score", "category_pixel_score")
                    )
                )
                for i in np.flatnonzero(arrays["pred_image"] == image)
            ]
        )
    return truths, predictions


def golden_options(record):
    params = record["params"]
    return {
        "num_classes": record["C"],
        "weights": tuple(params["quality_weights"]),
        "nms_threshold": params["parsing_nms_th"],
        "score_threshold": params["score_thresh"],
        "paint_threshold": params["semseg_score_thresh"],
    }


@pytest.mark.parametrize("with_parts", [True, False], ids=["instance_ids", "category_x_human"])
@pytest.mark.parametrize("name", CASES)
def test_official_equals_the_published_code(golden, name, with_parts):
    record, arrays = load_golden(golden, name)
    report = evaluate_parsing(*golden_images(record, arrays, with_parts=with_parts), **golden_options(record))
    for array, key in KEYS.items():
        np.testing.assert_allclose(report[key], arrays[array], rtol=0, atol=1e-9, equal_nan=True, err_msg=key)
    assert report["protocol"] == "official"
    assert report["persons"] == record["persons"] and report["predictions"] == record["predictions"]


@pytest.mark.parametrize("name", CASES)
def test_maps_and_survivors_equal_the_published_code(golden, name):
    record, arrays = load_golden(golden, name)
    official, options = PROTOCOLS["official"], golden_options(record)
    hw, classes = (record["H"], record["W"]), record["C"]
    quality = fuse_quality(
        arrays["pred_box_score"], arrays["pred_iou_score"], arrays["pred_pixel_score"], options["weights"]
    ).astype(np.float64)
    for image, predictions in enumerate(golden_images(record, arrays)[1]):
        mine = np.flatnonzero(arrays["pred_image"] == image)
        if not len(mine):
            continue
        people = [crop_person(p, classes) for p in predictions]
        canvas = paint_semantic(people, arrays["pred_box_score"][mine], hw, options["paint_threshold"], official)
        np.testing.assert_array_equal(canvas, arrays["global_parsing"][image])
        kept = published_nms(people, quality[mine], hw[0] * hw[1], options["nms_threshold"], official)
        assert sorted(kept) == np.flatnonzero(arrays["nms_kept"][mine]).tolist()
        kept = kept[quality[mine][kept] >= options["score_threshold"]]
        order = kept[ascending(quality[mine][kept], official)]
        painted = paint_instances(people, order, hw, classes, official)
        visible, dense = np.unique(painted.instance_map, return_inverse=True)
        dense = dense.reshape(hw) + (visible[0] > 0)  # renumber from 1, covered people left out
        np.testing.assert_array_equal(dense, arrays["instance_segmentation"][image])
        np.testing.assert_array_equal(painted.regions, arrays["instance_parsing"][image])
        here = arrays["instance_parsing_lines"][:, 0] == image
        np.testing.assert_array_equal(painted.region_class, arrays["instance_parsing_lines"][here, 2])
        expected = arrays["instance_parsing_scores"][here]
        got = arrays["part_scores"][mine][painted.region_instance, painted.region_class - 1]
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)


def test_strict_differs_from_official_exactly_where_a_quirk_bites(golden):
    for name, changed in (
        ("d01_mild", set()),
        ("d03_split_dup_nonms", {"ap_r"}),
        ("d04_nms_bug", {"ap_p", "ap_r", "pcp_50", "ap_h"}),
        ("d05_nopred_absent", {"miou", "mean_accuracy", "pixel_accuracy", "ap_r", "ap_h"}),
    ):
        record, arrays = load_golden(golden, name)
        images, options = golden_images(record, arrays), golden_options(record)
        official = evaluate_parsing(*images, **options)
        strict = evaluate_parsing(*images, protocol="strict", **options)
        keys = ("miou", "mean_accuracy", "pixel_accuracy", "ap_p", "pcp_50", "ap_r", "ap_h")
        assert {key for key in keys if abs(official[key] - strict[key]) > 1e-9} == changed, name
        assert np.nanmax(strict["ap_r_per_class"]) <= 1
