"""Intervals over images: they agree with the evaluator itself, hold the value, and shrink with more images."""

import json

import numpy as np
import pytest

from qanet.benchmarks.accuracy import (
    METRICS,
    ResampledEvaluator,
    mark_front,
    measure_accuracies,
    open_data,
    pareto_front,
)
from qanet.benchmarks.results import Scores, VariantResult
from qanet.benchmarks.schema import Latency, Metric
from qanet.benchmarks.variants import list_variants
from qanet.metrics import ParsingEvaluator, Prediction, Truth

CLASSES = 4


def scene(rng, wrong):
    """A person of a few classes, and a prediction in which a share of the pixels is wrong."""
    category = np.zeros((24, 20), np.uint8)
    category[2:22, 3:17] = np.repeat(rng.integers(1, CLASSES, 4), 5).astype(np.uint8)[:, None]
    labels = category.copy()
    flip = rng.random(labels.shape) < wrong
    labels[flip] = rng.integers(0, CLASSES, int(flip.sum()))
    score = float(1 - wrong)
    parts = np.full(CLASSES - 1, score, np.float32)
    return Truth(category, (category > 0).astype(np.uint8)), [Prediction(labels, 1.0, score, score, parts, None)]


def fill(evaluator, count, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        truth, predictions = scene(rng, rng.uniform(0.05, 0.6))
        evaluator.add(truth, predictions if rng.random() < 0.9 else [])
    return evaluator


@pytest.mark.parametrize("protocol", ["official", "strict"])
def test_all_images_once_give_the_report_itself(protocol):
    plain = fill(ParsingEvaluator(CLASSES, protocol, (1, 0.5, 3)), 12).report()
    kept = fill(ResampledEvaluator(CLASSES, protocol, (1, 0.5, 3)), 12)
    assert kept.report()["miou"] == plain["miou"]
    for name, value in kept.metrics_of(range(12)).items():
        assert value == pytest.approx(float(plain[name]), nan_ok=True), name


def test_a_draw_is_what_an_evaluator_of_those_images_reports():
    kept = fill(ResampledEvaluator(CLASSES, "strict", (1, 0.5, 3)), 8)
    drawn, rng, scenes = [2, 2, 5, 7, 0], np.random.default_rng(0), []
    for _ in range(8):
        truth, predictions = scene(rng, rng.uniform(0.05, 0.6))
        scenes.append((truth, predictions if rng.random() < 0.9 else []))
    again = ParsingEvaluator(CLASSES, "strict", (1, 0.5, 3))
    for index in drawn:
        again.add(*scenes[index])
    report = again.report()
    for name, value in kept.metrics_of(drawn).items():
        assert value == pytest.approx(float(report[name]), nan_ok=True), name


def test_intervals_hold_the_value_and_shrink_with_more_images():
    widths = []
    for count in (8, 64):
        found = fill(ResampledEvaluator(CLASSES, "strict", (1, 0.5, 3)), count).intervals(draws=60)
        assert set(found) == set(METRICS)
        miou = found["miou"]
        assert miou.low <= miou.value <= miou.high
        widths.append(miou.high - miou.low)
    assert widths[1] < 0.7 * widths[0]


def test_no_image_has_no_number():
    found = ResampledEvaluator(CLASSES, "official", (1, 0.5, 3)).intervals(draws=5)
    assert set(found) == set(METRICS) and found["miou"] == Metric(None, None, None)


def test_one_image_has_an_interval_of_no_width():
    miou = fill(ResampledEvaluator(CLASSES, "strict", (1, 0.5, 3)), 1, seed=1).intervals(draws=10)["miou"]
    assert miou.low == miou.value == miou.high


def test_every_variant_is_measured_on_a_data_folder(shared_tiny_bundle, tmp_path):
    pytest.importorskip("openvino")
    import cv2

    from qanet.bundle import open_bundle
    from qanet.runtime.backends.select import open_engine

    bundle = open_bundle(shared_tiny_bundle)
    for name, colour in (("a", (255, 0, 0)), ("b", (0, 255, 0)), ("c", (0, 0, 255))):
        for folder in ("photos", "labels"):
            (tmp_path / folder).mkdir(exist_ok=True)
        image, labels = np.zeros((80, 60, 3), np.uint8), np.zeros((80, 60), np.uint8)
        image[10:70, 10:50] = colour
        labels[10:70, 10:50] = 1 + ("a", "b", "c").index(name)
        cv2.imwrite(str(tmp_path / "photos" / f"{name}.png"), image)
        cv2.imwrite(str(tmp_path / "labels" / f"{name}.png"), labels)
    data = open_data(str(tmp_path), "ccp", None, bundle.labels)
    variants = list_variants([bundle], ["fp32"], ["kernel"], ["cpu"])
    engines = {"fp32": open_engine(bundle, "cpu", "fp32", ("logits", "iou_scores"), 1)}
    found = measure_accuracies(variants, engines, data, "strict", 2)["fp32"]
    assert found.images == 2 and found.boxes == "ground truth" and "measured here" in found.note
    assert 0 < found.values["pixel_accuracy"].value <= 1
    json.dumps(found.to_json(), allow_nan=False)
    assert measure_accuracies(variants, {}, data, "strict") == {}


@pytest.mark.parametrize(
    ("points", "front"),
    [
        ([], []),
        ([(1.0, 0.5)], [True]),
        ([(1.0, 0.5), (2.0, 0.6), (3.0, 0.55)], [True, True, False]),
        ([(1.0, 0.5), (1.0, 0.5)], [True, True]),
        ([(1.0, 0.5), (1.0, 0.6), (2.0, 0.6)], [False, True, False]),
    ],
)
def test_the_front_is_what_nothing_dominates(points, front):
    assert pareto_front(points) == front


def test_what_was_not_measured_is_on_no_front():
    rows = [
        VariantResult("a", parser_ms=Latency(p50=5.0, n=1), accuracy=Scores(0.5)),
        VariantResult("b", parser_ms=Latency(p50=9.0, n=1), accuracy=Scores(0.4)),
        VariantResult("c", accuracy=Scores(0.9)),
        VariantResult("d", parser_ms=Latency(p50=1.0, n=1)),
    ]
    assert [row.pareto for row in mark_front(rows)] == [True, False, None, None]
