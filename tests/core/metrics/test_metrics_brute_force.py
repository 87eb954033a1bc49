"""Metrics of random pictures: their tables against brute force, their report however they are fed, their memory."""

import tracemalloc

import numpy as np
import pytest
from metric_cases import person, random_images

from qanet.metrics import PROTOCOLS, ParsingEvaluator, Prediction, Truth, evaluate_parsing
from qanet.metrics.measures import boundary_band
from qanet.metrics.people import class_iou, crop_person, index_truth, pair_mean_iou


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
        cropped.append(
            [
                Prediction(
                    c.labels,
                    p.box_score,
                    p.iou_score,
                    p.pixel_score,
                    p.part_pixel_scores,
                    (c.x0, c.y0, c.x0 + c.labels.shape[1], c.y0 + c.labels.shape[0]),
                )
                for p, c in rows
            ]
        )
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


@pytest.mark.parametrize("radius", [1, 2, 5])
def test_boundary_band_equals_brute_force(radius):
    labels = np.random.default_rng(radius).integers(0, 2, (3, 4)).astype(np.uint8).repeat(4, 0).repeat(5, 1)
    expected = np.zeros(labels.shape, bool)
    for y, x in np.ndindex(labels.shape):
        window = labels[max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1]
        expected[y, x] = (window != labels[y, x]).any()
    assert expected.any() and not expected.all() or radius == 5
    np.testing.assert_array_equal(boundary_band(labels, radius), expected)


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
