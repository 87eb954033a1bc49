"""Accuracy of a parser, or of one graph of a bundle, on a data set: the report of `qanet.metrics`."""

import hashlib
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.bundle import Bundle
from qanet.datasets import AnnotatedImage, DataSet, DetectedBoxes, default_split, format_of, open_dataset
from qanet.datasets.annotations import read_tags, tags_of
from qanet.errors import QanetError
from qanet.labels import LabelSet
from qanet.metrics import ParsingEvaluator, Prediction
from qanet.results import Person
from qanet.runtime.backends.base import KERNEL_TAIL_OUTPUTS, Engine, Outputs, Reopened
from qanet.runtime.backends.openvino import engine_from_graph
from qanet.runtime.detectors.base import Detections, WholeImage
from qanet.runtime.parser import Parser

TagsOf = Callable[[AnnotatedImage], NDArray[np.intp]]


def predictions_of(people: Iterable[Person]) -> list[Prediction]:
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
        people = parser.every_box(scene.image, _boxes_of(scene, parser, detected))
        evaluator.add(scene.truth, predictions_of(people))
        if progress:
            progress()
    report = evaluator.report()
    foreground = np.asarray(report["f_measure"], np.float64)[1:]
    occurs = np.isfinite(foreground)  # in the ground truth or in the predictions
    mean = float(foreground[occurs].mean()) if occurs.any() else math.nan
    return {**report, "mean_f_measure_foreground": mean}


def _boxes_of(scene: AnnotatedImage, parser: Parser, detected: DetectedBoxes | None = None) -> Detections:
    """The boxes to parse; a network of whole pictures is judged on the whole picture unless a detector's are given."""
    if parser.is_whole and detected is None:
        return WholeImage().detect(scene.image)
    return Detections(scene.boxes, scene.box_scores)


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
    """Whether the data set is marked as synthetic (a file synthetic_<split>.json)."""
    return any(root.glob("synthetic_*.json"))


ANNOTATION = "annotation"
_NEVER = -1e4  # a logit: within FP16, and its probability is zero next to any other


def choose_tags(source: str, labels: LabelSet) -> TagsOf:
    """A function image -> tags: of the annotation itself, or of a JSON file (`qanet.datasets.annotations`).

    Raises:
        QanetError: a file that cannot be read; later, an image that it does not name.
    """
    if source == ANNOTATION:
        return lambda scene: tags_of(scene.truth, labels.num_classes)
    tags = read_tags(Path(source), labels)

    def of(scene: AnnotatedImage) -> NDArray[np.intp]:
        if scene.name not in tags:
            raise QanetError(f"{source} has no tags of {scene.name}", expected="every image of the split")
        return tags[scene.name]

    return of


class TaggedEngine(Reopened):
    """An engine whose logits of classes that are not allowed can win nowhere.

    Args:
        engine: gives "logits" (N, C, h, w).
        labels: the classes; of a left and right pair both are allowed or none, since a mirrored view swaps them.
    """

    def __init__(self, engine: Engine, labels: LabelSet):
        self._engine, self._labels = engine, labels
        self.runtime, self.precision, self.outputs = engine.runtime, engine.precision, engine.outputs
        self._absent = np.zeros(labels.num_classes, bool)

    def allow(self, ids: NDArray[np.intp]) -> None:
        """The classes that may be there, from the next run on."""
        self._absent[:] = True
        self._absent[ids] = False
        for left, right in self._labels.flip_pairs:
            self._absent[[left, right]] &= self._absent[[right, left]]

    def run(self, crops: NDArray[np.uint8], box_scores: NDArray[np.float32]) -> Outputs:
        """See `Engine.run`."""
        outputs = dict(self._engine.run(crops, box_scores))
        logits = outputs["logits"].copy()
        logits[:, self._absent] = _NEVER
        return {**outputs, "logits": logits}


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
            people = parser.every_box(scene.image, _boxes_of(scene, parser))
            evaluator.add(scene.truth, predictions_of(people))
        report = evaluator.report()
        return {name: 100 * float(report[key]) for name, key in _KEYS.items()}

    return measure, digest.hexdigest()
