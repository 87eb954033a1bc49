"""How the whole parser's time grows: with the people of a frame (1 to 16), and with the image's area."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from qanet.benchmarks.harness import Session, Target
from qanet.benchmarks.statistics import summarize
from qanet.benchmarks.targets.samples import Sample, SampleSet
from qanet.runtime.detectors.base import Detections
from qanet.runtime.parser import Parser

PERSONS = (1, 2, 4, 8, 16)
SCALES = (0.5, 0.71, 1.0, 1.41, 2.0)  # of the sides: areas of a quarter to four times
_SHIFT = 3  # pixels between copies of a box, so that they are people of their own


def with_people(sample: Sample, count: int) -> Detections:
    """`count` boxes (N, 4) in a frame: its own in turn, moved a little each time around, kept inside the image."""
    boxes, scores = sample.found.boxes, sample.found.scores
    order = np.arange(count) % len(boxes)
    moved = boxes[order] + _SHIFT * (np.arange(count) // len(boxes))[:, None].astype(np.float32)
    height, width = sample.image.shape[:2]
    over = np.maximum(moved[:, 2:] - np.array([width, height], np.float32), 0)
    return Detections((moved - np.tile(over, 2)).astype(np.float32), scores[order])


def enlarged(sample: Sample, scale: float) -> tuple[np.ndarray, Detections]:
    """A frame and its boxes, sides times `scale`: the people grow with the image, as with a larger camera."""
    import cv2

    size = [max(8, round(side * scale)) for side in sample.image.shape[1::-1]]
    image = np.asarray(cv2.resize(sample.image, size, interpolation=cv2.INTER_LINEAR), np.uint8)
    factors = np.array([size[0] / sample.image.shape[1], size[1] / sample.image.shape[0]] * 2, np.float32)
    return image, Detections(sample.found.boxes * factors, sample.found.scores)


def sweep_targets(label: str, parser: Parser, samples: SampleSet) -> list[tuple[str, float, Target]]:
    """(sweep, x, target) of one variant on the frame with most people; x is people, or megapixels."""
    sample = max(samples.samples, key=lambda s: len(s.found))
    found = []
    for count in PERSONS:
        target = _target(f"{label}, {count} people", label, parser, sample.image, with_people(sample, count))
        found.append(("persons", float(count), target))
    for scale in SCALES:
        image, boxes = enlarged(sample, scale)
        area = image.shape[0] * image.shape[1] / 1e6
        target = _target(f"{label}, {area:.3g} megapixels", label, parser, image, boxes)
        found.append(("area", round(area, 4), target))
    return found


def sweeps_of(
    planned: Mapping[str, Sequence[tuple[str, float, Target]]], session: Session
) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """sweep -> label -> points of x and latency in milliseconds; points without a sample are left out."""
    measured = {m.target.name: m.samples_ms for m in session.measurements}
    found: dict[str, dict[str, list[dict[str, Any]]]] = {"persons": {}, "area": {}}
    for label, entries in planned.items():
        for sweep, x, target in entries:
            if measured.get(target.name):
                point = {"x": x, "latency_ms": summarize(measured[target.name])}
                found[sweep].setdefault(label, []).append(point)
    return found


def _target(name: str, label: str, parser: Parser, image: np.ndarray, found: Detections) -> Target:
    def call(number: int) -> object:
        return parser.parse(image, found)

    return Target(name, call, "parser", parser.engine.precision, parser.engine.runtime, len(found), variant=label)
