"""Metrics against the official code's numbers (golden), against brute force, and against hand-computed cases."""

import json
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from qanet.errors import QanetError
from qanet.metrics import PROTOCOLS, ParsingEvaluator, Prediction, Truth, evaluate_parsing
from qanet.metrics.curves import average_precision, calibration_error, rank_correlation, ranking
from qanet.metrics.overlap import class_iou, crop_person, index_truth, pair_mean_iou
from qanet.metrics.painting import ascending, paint_instances, paint_semantic, parsing_nms
from qanet.metrics.semantic import boundary_band, boundary_counts
from qanet.quality import fuse_quality

CASES = [
    "d01_mild", "d02_drop_fp", "d03_split_dup_nonms", "d04_nms_bug", "d05_nopred_absent", "d06_perfect", "d07_void",
]  # fmt: skip
# golden array -> key of the report
KEYS = {
    "IoU": "iou", "mIoU": "miou", "PixelACC": "pixel_accuracy", "MeanACC": "mean_accuracy", "thresholds": "thresholds",
    "APp": "ap_p_per_threshold", "APp_mean": "ap_p", "APp50": "ap_p_50", "PCP": "pcp_per_threshold", "PCP50": "pcp_50",
    "APr": "ap_r_per_threshold", "APr_mean": "ap_r", "APr50": "ap_r_50", "APr_per_class": "ap_r_per_class",
    "APh": "ap_h_per_threshold", "APh_thresholds": "human_thresholds",
}  # fmt: skip


def golden_folder() -> Path | None:
    """The folder of golden vectors: $QANET_SHARED/golden, the shared folder beside the checkout, or tests/golden."""
    root = Path(__file__).resolve().parents[2]
    shared = Path(os.environ.get("QANET_SHARED", root.parent / "shared"))
    for folder in (shared / "golden", root / "tests" / "golden"):
        if (folder / "index.json").is_file():
            return folder
    return None


def load_golden(name):
    """A case's record in index.json and its arrays; skips where there is none."""
    folder = golden_folder()
    if folder is None:
        pytest.skip("no golden vectors: set QANET_SHARED to the folder that holds golden/")
    lines = (folder / "index.json").read_text().splitlines()
    records = [json.loads(line) for line in lines if line.strip()]
    record = next((r for r in records if r["kind"] == "metrics" and r["name"] == name), None)
    if record is None or not (folder / record["file"]).is_file():
        pytest.skip(f"golden case {name} is not in {folder.name}/")
    with np.load(folder / record["file"]) as arrays:
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
                Prediction(*(arrays[f"pred_{key}"][i] for key in (
                    "labels", "box_score", "iou_score", "pixel_score", "category_pixel_score",
                )))
                for i in np.flatnonzero(arrays["pred_image"] == image)
            ]
        )  # fmt: skip
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
def test_official_equals_the_published_code(name, with_parts):
    record, arrays = load_golden(name)
    report = evaluate_parsing(*golden_images(record, arrays, with_parts=with_parts), **golden_options(record))
    for array, key in KEYS.items():
        np.testing.assert_allclose(report[key], arrays[array], rtol=0, atol=1e-9, equal_nan=True, err_msg=key)
    assert report["protocol"] == "official"
    assert report["persons"] == record["persons"] and report["predictions"] == record["predictions"]


@pytest.mark.parametrize("name", CASES)
def test_maps_and_survivors_equal_the_published_code(name):
    record, arrays = load_golden(name)
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
        kept = parsing_nms(people, quality[mine], hw[0] * hw[1], options["nms_threshold"], official)
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


def test_strict_differs_from_official_exactly_where_a_quirk_bites():
    for name, changed in (
        ("d01_mild", set()),
        ("d03_split_dup_nonms", {"ap_r"}),
        ("d04_nms_bug", {"ap_p", "ap_r", "pcp_50", "ap_h"}),
        ("d05_nopred_absent", {"miou", "mean_accuracy", "pixel_accuracy", "ap_r", "ap_h"}),
    ):
        record, arrays = load_golden(name)
        images, options = golden_images(record, arrays), golden_options(record)
        official = evaluate_parsing(*images, **options)
        strict = evaluate_parsing(*images, protocol="strict", **options)
        keys = ("miou", "mean_accuracy", "pixel_accuracy", "ap_p", "pcp_50", "ap_r", "ap_h")
        assert {key for key in keys if abs(official[key] - strict[key]) > 1e-9} == changed, name
        assert np.nanmax(strict["ap_r_per_class"]) <= 1


# Hand-computed cases. Rows of digits: one character a pixel; "." is 0, "v" void.


def grid(*rows):
    table = str.maketrans({".": "0"})
    return np.array([[255 if c == "v" else int(c) for c in row.translate(table)] for row in rows], np.uint8)


def person(labels, score=0.9, *, classes=3, box=None, parts=None, roi=None):
    box = score if box is None else box
    return Prediction(labels, box, score, score, np.full(classes - 1, score) if parts is None else parts, roi)


# two people of two classes each; person 1 on the left, person 2 on the right
CATEGORY = grid("11..11..", "22..22..", "22..22..", "........")
HUMAN = grid("11..22..", "11..22..", "11..22..", "........")
LEFT, RIGHT = CATEGORY * (HUMAN == 1), CATEGORY * (HUMAN == 2)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_perfect_prediction_is_one_everywhere(protocol):
    truth = Truth(CATEGORY, HUMAN)
    report = evaluate_parsing([truth], [[person(LEFT), person(RIGHT, 0.8)]], num_classes=3, protocol=protocol)
    for key in ("miou", "pixel_accuracy", "mean_accuracy", "boundary_miou", "mean_true_iou",
                "ap_p", "ap_p_50", "pcp", "pcp_50", "ap_r", "ap_r_50", "ap_h", "ap_h_50"):  # fmt: skip
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
    assert report["mean_accuracy"] == pytest.approx((7 / 8 + 2 / 4) / 2)
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


def test_a_person_wholly_in_void_is_a_ground_truth_only_in_official():
    truth = Truth(grid("11vv", "...."), grid("1122", "...."))
    images = [truth], [[person(grid("11..", "...."), classes=2)]]
    official = evaluate_parsing(*images, num_classes=2)
    strict = evaluate_parsing(*images, num_classes=2, protocol="strict")
    assert (official["persons"], official["ap_p"], official["pcp"]) == (2, 0.5, 0.5)
    assert (strict["persons"], strict["ap_p"], strict["pcp"]) == (1, 1, 1)


def test_an_image_of_void_says_nothing_about_the_scores():
    void = Truth(grid("vv", "vv"), grid("11", "11"))
    report = evaluate_parsing([void], [[person(grid("1.", ".."), classes=2)]], num_classes=2)
    assert np.isnan(report["mean_true_iou"]) and report["ap_p"] == 0


def test_another_persons_void_is_background():
    # the predicted person spills over the void of person 2: an error for person 1
    category, human = grid("11vv", "...."), grid("1122", "....")
    iou = class_iou(index_truth(Truth(category, human), 2, void_people=True), crop_person(person(
        grid("1111", "...."), classes=2), 2))  # fmt: skip
    np.testing.assert_allclose(iou, [[4 / 6, 2 / 4], [4 / 6, 0]])


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
    survivors = {name: parsing_nms(crops, quality, LEFT.size, 0.6, protocol) for name, protocol in PROTOCOLS.items()}
    assert {name: kept.tolist() for name, kept in survivors.items()} == {"official": [0, 1, 3, 4], "strict": [0, 1, 4]}
    # official: TP TP FP TP of 3 people, so AP = 2/3 + 1/3 * 3/4
    assert evaluate_parsing([truth], [people], num_classes=3)["ap_p"] == pytest.approx(2 / 3 + 1 / 4)
    assert evaluate_parsing([truth], [people], num_classes=3, protocol="strict")["ap_p"] == pytest.approx(1)


def test_nms_drops_at_its_threshold():
    # class 1: 1 of 3 pixels in common; background: 4 of 6; the mean is exactly 1/2
    people = [crop_person(person(m, classes=2), 2) for m in (grid("111...."), grid("1......"))]
    assert pair_mean_iou(*people, 7) == 0.5
    for protocol in PROTOCOLS.values():
        assert len(parsing_nms(people, np.array([0.9, 0.8]), 7, 0.5, protocol)) == 1
        assert len(parsing_nms(people, np.array([0.9, 0.8]), 7, 0.51, protocol)) == 2


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_ground_truths_of_different_images_are_different(protocol):
    truths, predictions = [Truth(CATEGORY, HUMAN)] * 2, [[person(LEFT), person(RIGHT)]] * 2
    report = evaluate_parsing(truths, predictions, num_classes=3, protocol=protocol)
    assert report["persons"] == 4
    assert report["ap_p"] == report["ap_r"] == report["ap_h"] == report["pcp"] == 1


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


def test_a_predicted_class_without_ground_truth_is_no_ap_r_but_costs_miou():
    labels = np.where(LEFT == 2, 3, LEFT).astype(np.uint8)
    for protocol in PROTOCOLS:
        report = evaluate_parsing(
            [Truth(CATEGORY, HUMAN)], [[person(labels, classes=4)]], num_classes=4, protocol=protocol
        )
        assert np.isnan(report["ap_r_per_class"][2]).all()
        np.testing.assert_array_equal(report["ap_r_per_class"][:2, 4], [0.5, 0])
        assert report["iou"][3] == 0 and report["miou"] == pytest.approx((20 / 26 + 1 / 2 + 0 + 0) / 4)


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


def random_images(rng, count=6, classes=5, hw=(33, 29)):
    """Images of overlapping rectangles with void, and predictions that are noisy copies."""
    truths, predictions = [], []
    for _ in range(count):
        human = np.zeros(hw, np.uint8)
        for i in range(int(rng.integers(0, 4))):
            y, x = rng.integers(0, 20, 2)
            human[y : y + 12, x : x + 9] = 3 * i + 2
        category = np.where(human > 0, rng.integers(0, classes, hw), 0).astype(np.uint8)
        category[rng.random(hw) < 0.05] = 255
        truths.append(Truth(category, human))
        people = []
        for i in [*np.unique(human[human > 0]), 99]:
            labels = np.where((human == i) & (category < classes), category, 0)
            noise = rng.random(hw) < 0.2 * (human > 0)
            labels = np.where(noise, rng.integers(0, classes, hw), labels).astype(np.uint8)
            scores = rng.random(3).astype(np.float32)
            people.append(Prediction(labels, *scores, rng.random(classes - 1).astype(np.float32)))
        predictions.append(people)
    return truths, predictions


def naive_class_iou(truth, predicted, classes):
    ious = np.full(classes, np.nan)
    known = truth < classes
    for c in range(classes):
        union = (((truth == c) | (predicted == c)) & known).sum()
        if union:
            ious[c] = ((truth == c) & (predicted == c) & known).sum() / union
    return ious


@pytest.mark.parametrize("seed", range(4))
def test_tables_equal_brute_force(seed):
    truths, predictions = random_images(np.random.default_rng(seed))
    for truth, people in zip(truths, predictions):
        table = index_truth(truth, 5, void_people=True)
        assert table.ids.tolist() == np.unique(truth.human[truth.human > 0]).tolist()
        crops = [crop_person(p, 5) for p in people]
        for p, crop in zip(people, crops):
            expected = [naive_class_iou(truth.category * (truth.human == i), p.labels, 5) for i in table.ids]
            np.testing.assert_array_equal(class_iou(table, crop), np.reshape(expected, (-1, 5)))
            for other, other_crop in zip(people, crops):
                pair = np.nanmean(naive_class_iou(p.labels, other.labels, 5))
                assert pair_mean_iou(crop, other_crop, p.labels.size) == pytest.approx(pair, abs=1e-12)


def test_roi_streaming_and_generators_give_the_same_report():
    truths, predictions = random_images(np.random.default_rng(7))
    cropped = []
    for people in predictions:
        rows = [(p, crop_person(p, 5)) for p in people]
        cropped.append([
            Prediction(c.labels, p.box_score, p.iou_score, p.pixel_score, p.part_pixel_scores,
                       (c.x0, c.y0, c.x0 + c.labels.shape[1], c.y0 + c.labels.shape[0]))
            for p, c in rows
        ])  # fmt: skip
    for protocol in PROTOCOLS:
        whole = evaluate_parsing(truths, predictions, num_classes=5, protocol=protocol)
        assert 0 < whole["ap_p"] < 1 and 0 < whole["ap_r"] < 1  # the case is not a trivial one
        evaluator = ParsingEvaluator(5, protocol)
        for truth, people in zip(truths, cropped):
            evaluator.add(truth, people)
        lazy = evaluate_parsing((t for t in truths), (p for p in predictions), num_classes=5, protocol=protocol)
        for other in (evaluator.report(), lazy):
            assert other.keys() == whole.keys()
            for key, value in whole.items():
                np.testing.assert_array_equal(other[key], value, err_msg=key)


def test_memory_is_bounded_by_people_and_not_by_pixels():
    # 24 people of 20 classes: a (N, C, H, W) table of bytes would take 126 MB an image, a mask per class 2.6 MB each
    hw, count, classes = (512, 512), 24, 20
    rng = np.random.default_rng(0)
    human, people = np.zeros(hw, np.uint8), []
    for i in range(count):
        y, x = 80 * (i // 6), 85 * (i % 6)
        labels = np.zeros(hw, np.uint8)
        labels[y : y + 78, x : x + 80] = rng.integers(0, classes, (78, 80))
        human[labels > 0] = i + 1
        people.append(person(labels, 0.5 + i / 100, classes=classes))
    truth = Truth(np.maximum.reduce([p.labels for p in people]), human)
    evaluator = ParsingEvaluator(classes)
    evaluator.add(truth, people)
    tracemalloc.start()
    try:
        for _ in range(3):
            evaluator.add(truth, people)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 24 * 2**20, f"{peak / 2**20:.1f} MiB at the peak of an image"
    assert kept < 3 * 2**18, f"{kept / 3 / 1024:.0f} KiB kept of an image"  # a single (H, W) map is 256 KiB


def test_rank_correlation_by_hand():
    assert rank_correlation(np.array([1.0, 2, 3]), np.array([10.0, 20, 90])) == pytest.approx(1)
    assert rank_correlation(np.array([3.0, 2, 1]), np.array([10.0, 20, 90])) == pytest.approx(-1)
    # ranks 1, 2.5, 2.5, 4 against 1..4: covariance 4.5, spreads 4.5 and 5
    tied = rank_correlation(np.array([1.0, 2, 2, 3]), np.array([1.0, 2, 3, 4]))
    assert tied == pytest.approx(4.5 / np.sqrt(4.5 * 5))
    assert rank_correlation(np.array([1.0, np.nan, 3]), np.array([1.0, 0, 3])) == pytest.approx(1)
    assert np.isnan(rank_correlation(np.array([1.0, 1]), np.array([1.0, 2])))
    assert np.isnan(rank_correlation(np.array([1.0]), np.array([1.0])))


def test_calibration_error_by_hand():
    # bins 0.1..0.2: mean score 0.15 against 0.35 (2 people); 0.9..1: 0.95 against 0.75 (1); above 1 is the last bin
    scores, truth = np.array([0.12, 0.18, 0.95]), np.array([0.4, 0.3, 0.75])
    assert calibration_error(scores, truth) == pytest.approx((2 * 0.2 + 0.2) / 3)
    assert calibration_error(np.array([0.9, 1.1]), np.array([1.0, 1.0])) == pytest.approx(0)
    assert calibration_error(np.array([0.5, np.nan]), np.array([0.4, 1.0])) == pytest.approx(0.1)
    assert np.isnan(calibration_error(np.array([np.nan]), np.array([1.0])))


def test_average_precision_by_hand():
    assert average_precision(np.array([True, False, True]), 2, absent=0) == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert average_precision(np.zeros(0, bool), 2, absent=0) == 0
    assert average_precision(np.zeros(0, bool), 0, absent=0) == 0
    assert np.isnan(average_precision(np.array([False]), 0, absent=0))


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


@pytest.mark.parametrize("radius", [1, 2, 5])
def test_boundary_band_equals_brute_force(radius):
    labels = np.random.default_rng(radius).integers(0, 2, (3, 4)).astype(np.uint8).repeat(4, 0).repeat(5, 1)
    expected = np.zeros(labels.shape, bool)
    for y, x in np.ndindex(labels.shape):
        window = labels[max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1]
        expected[y, x] = (window != labels[y, x]).any()
    assert expected.any() and not expected.all() or radius == 5
    np.testing.assert_array_equal(boundary_band(labels, radius), expected)


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
)  # fmt: skip
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
