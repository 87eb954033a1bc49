"""The report of `qanet.metrics` for a parser on a data set, image by image."""

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from qanet.benchmarks.val.tagged import TaggedEngine, TagsOf
from qanet.datasets import DataSet, DetectedBoxes
from qanet.errors import QanetError
from qanet.metrics import ParsingEvaluator, Prediction
from qanet.results import PersonParsing
from qanet.runtime.detectors.base import Detections
from qanet.runtime.parser import Parser


def predictions_of(people: Iterable[PersonParsing]) -> list[Prediction]:
    """A parser's people as the metrics take them."""
    return [Prediction(p.labels, p.box_score, p.iou_score, p.pixel_score, p.part_scores, p.roi) for p in people]


def evaluate(
    parser: Parser,
    data: DataSet,
    protocol: str,
    progress: Callable[[], None] | None = None,
    detected: DetectedBoxes | None = None,
    weights: tuple[float, float, float] | None = None,
    evaluator: ParsingEvaluator | None = None,
    tags: TagsOf | None = None,
) -> dict[str, Any]:
    """The report of `qanet.metrics` for a parser on a data set, image by image.

    Args:
        detected: a detector's boxes in place of the ground truth's.
        weights: QAM exponents of box, IoU and pixel score; None: the bundle's.
        evaluator: a fresh one that keeps more than the report needs; None: one of the protocol and the weights.
        tags: the classes that may be there, image by image; None: any. Wants the kernel tail.
    Raises:
        QanetError: data and model have different classes, or a file of the data set is broken.
    """
    bundle = parser.bundle
    tagged = TaggedEngine(parser.engine, bundle.labels) if tags else None
    if tagged:
        parser = Parser(bundle, tagged, parser.tail, augmentation=parser.augmentation)
    if data.label_set.num_classes != bundle.labels.num_classes:
        raise QanetError("data and model have different classes", expected=bundle.labels.name, got=data.label_set.name)
    evaluator = evaluator or ParsingEvaluator(bundle.labels.num_classes, protocol, weights or bundle.qam_weights)
    for scene in data.images(detected):
        if tagged and tags:
            tagged.allow(tags(scene))
        people = parser.everybody(scene.image, Detections(scene.boxes, scene.box_scores))
        evaluator.add(scene.truth, predictions_of(people))
        if progress:
            progress()
    report = evaluator.report()
    foreground = np.asarray(report["f_measure"], np.float64)[1:]
    occurs = np.isfinite(foreground)  # in the ground truth or in the predictions
    mean = float(foreground[occurs].mean()) if occurs.any() else math.nan
    return {**report, "mean_f_measure_foreground": mean}


def plain(value: Any) -> Any:
    """A report as JSON takes it: lists for arrays, null for what is undefined."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def is_synthetic(root: Path) -> bool:
    """Whether the data set says of itself that it is made up (synthetic_<split>.json beside it)."""
    return any(root.glob("synthetic_*.json"))
