"""Accuracy of one graph of a bundle after another, on the same images: what the precision search measures with."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from qanet.benchmarks.val.evaluate import predictions_of
from qanet.bundle import Bundle
from qanet.datasets import default_split, open_dataset
from qanet.errors import QanetError
from qanet.metrics import ParsingEvaluator
from qanet.runtime.crops import format_of
from qanet.runtime.detectors.base import Detections
from qanet.runtime.engines.base import KERNEL_TAIL_OUTPUTS
from qanet.runtime.engines.openvino import engine_from_graph
from qanet.runtime.parser import Parser

_KEYS = {
    "miou": "miou",
    "pixel_accuracy": "pixel_accuracy",
    "ap_r": "ap_r",
    "rank_correlation": "rank_correlation_quality",
}


def open_accuracy(
    bundle: Bundle, root: Path, images: int, threads: int | None = None
) -> tuple[Callable[[bytes, str], dict[str, float]], str]:
    """A function (ONNX graph, its precision) -> metrics x 100, through the parser with ground-truth boxes.

    Args:
        bundle: whose labels, input size and QAM exponents hold for every graph.
        root: a data set folder; its validation split is taken, evenly thinned to `images`.
    Returns:
        The function, and a hex digest of what it measures on.
    Raises:
        QanetError: the folder is no data set of the bundle's classes.
    """
    format = format_of(root)
    if format is None:
        raise QanetError(f"{root} is no data set with labels", expected="photographs and their labels to measure on")
    split = default_split(root, format)
    data = open_dataset(root, format, bundle.labels, split)
    count = len(data.image_names)
    chosen = np.unique(np.linspace(0, count - 1, min(images, count)).round().astype(int)).tolist()
    names = [data.image_names[index] for index in chosen]
    digest = hashlib.sha256(repr((format, split, bundle.labels.name, bundle.qam_weights, names)).encode())

    def measure(graph: bytes, precision: str) -> dict[str, float]:
        parser = Parser(bundle, engine_from_graph(graph, precision, KERNEL_TAIL_OUTPUTS, threads))
        evaluator = ParsingEvaluator(bundle.labels.num_classes, "official", bundle.qam_weights)
        for index in chosen:
            scene = data.image(index)
            people = parser.everybody(scene.image, Detections(scene.boxes, scene.box_scores))
            evaluator.add(scene.truth, predictions_of(people))
        report = evaluator.report()
        return {name: 100 * float(report[key]) for name, key in _KEYS.items()}

    return measure, digest.hexdigest()
