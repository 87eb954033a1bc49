"""Targets: the calls that are timed for every variant that passed its check, and for the PyTorch form.

The same crops, boxes and frames go to every variant of a model: sample number k of a round is the same for all.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.benchmarks.check import FLOOR
from qanet.benchmarks.harness import Session, Target, anchor_target, latency_of, null_target
from qanet.benchmarks.samples import Sample, SampleSet
from qanet.benchmarks.schema import SweepPoint
from qanet.benchmarks.variants import Variant
from qanet.bundle import Bundle
from qanet.errors import QanetError
from qanet.quality import clamp_iou, fuse_quality
from qanet.runtime.backends.base import Engine, Outputs
from qanet.runtime.detectors.base import Detections
from qanet.runtime.kernels import choose_kernels
from qanet.runtime.parser import MAX_BATCH, Parser

Batch = tuple[NDArray[np.uint8], NDArray[np.float32]]  # crops (B, H, W, 3) uint8, box scores (B,) float32

TIMED = {
    "engine": "uint8 crops and box scores in host memory to the network's outputs in host memory; on a GPU both "
    "copies are inside; the crops are made before",
    "tail": "logits and boxes of a frame's people to labels at image resolution, pixel scores and fused quality",
    "parser": "a decoded frame and its boxes to the parsed people: crop, engine, tail and suppression of duplicates",
    "baseline": "the same as parser, in PyTorch as the published code computes it: the network in FP32, every "
    "person's class probabilities pasted to the whole image, then reduced; duplicates are not suppressed",
    "pipeline": "a stretch of the input from its file to a file: decode, detect, crop, engine, tail, paint and encode, "
    "in three threads; milliseconds per frame are those of the stretch over its frames",
    "anchor": "a fixed matrix product and copy that use nothing of this project: they show whether the machine "
    "or the program is slow",
    "null": "a call that does nothing: what the harness adds to every sample",
}
NOT_TIMED = (
    "opening and compiling the engines, and the warm-up calls before the first round (given apart)",
    "decoding and person detection, but for the pipeline (their durations while the samples were gathered are given "
    "apart)",
    "drawing, encoding and writing, and tracking from frame to frame, but for the pipeline",
    "waiting for an input: calls follow each other without a gap, one at a time, so throughput is of one stream",
)


def mean_batch(samples: SampleSet) -> int:
    """The mean people count of the frames, as a batch size."""
    return int(min(max(round(samples.mean_people), 1), MAX_BATCH))


def batches(samples: SampleSet, size: int) -> list[Batch]:
    """All crops in batches of exactly `size`, the first ones again where the last batch lacks some."""
    crops, scores = samples.crops()
    order = np.arange(-(-len(crops) // size) * size) % len(crops)
    return [(crops[part], scores[part]) for part in order.reshape(-1, size)]


def build_targets(
    variants: Sequence[Variant], engines: Mapping[str, Engine], samples: Mapping[str, SampleSet]
) -> tuple[list[Target], dict[str, Parser]]:
    """The null target, the anchor, and per variant the engine alone (one crop; the mean people count), the tail where
    it is not in the graph, and the whole parser.

    Args:
        engines: by the variant's label; a variant without one is left out.
        samples: by model.
    Returns:
        The targets, kind by kind so that the variants of one kind follow each other, and by label the parsers whose
        `times` hold the stages of the whole-parser target.
    """
    timed = [variant for variant in variants if variant.label in engines]
    parsers = {v.label: Parser(v.bundle, engines[v.label], v.tail) for v in timed}
    targets = [null_target(), anchor_target()]
    targets += [engine_target(v, engines[v.label], batches(samples[v.model], 1), 1) for v in timed]
    for v in timed:
        size = mean_batch(samples[v.model])
        if size > 1:
            targets.append(engine_target(v, engines[v.label], batches(samples[v.model], size), size))
    targets += [tail_target(v, engines[v.label], samples[v.model]) for v in timed if v.tail == "kernel"]
    targets += [parser_target(v, parsers[v.label], samples[v.model]) for v in timed]
    return targets, parsers


def engine_target(variant: Variant, engine: Engine, prepared: list[Batch], size: int) -> Target:
    """The network alone at one batch size."""

    def call(number: int) -> Outputs:
        return engine.run(*prepared[number % len(prepared)])

    name = f"{variant.label} engine, batch {size}"
    return Target(name, call, "engine", variant.precision, engine.runtime, size, variant=variant.label)


def tail_target(variant: Variant, engine: Engine, samples: SampleSet) -> Target:
    """The kernel tail and the fusion on the engine's own logits, one frame per call; the first makes the logits."""
    prepared: list[tuple[Sample, Outputs]] = []

    def call(number: int) -> None:
        if not prepared:  # in the warm-up, where an engine that raises costs this target alone
            prepared.extend([(sample, _outputs(engine, sample)) for sample in samples.samples])
        sample, outputs = prepared[number % len(prepared)]
        run_tail(variant.bundle, sample, outputs)

    name = f"{variant.label} tail, a frame"
    return Target(name, call, "tail", variant.precision, engine.runtime, samples.mean_people, variant=variant.label)


def run_tail(bundle: Bundle, sample: Sample, outputs: Outputs) -> None:
    """The steps after the engine, for a frame's people: labels and pixel scores, then the fusion."""
    scored = choose_kernels().pixel_score(outputs["logits"], sample.grown, sample.image.shape[:2], bundle.threshold)
    iou, box = clamp_iou(outputs["iou_scores"]), np.clip(sample.found.scores, 0, 1)
    fuse_quality(box, iou, scored.pixel_scores, bundle.qam_weights)
    fuse_quality(box[:, None], iou[:, None], scored.part_scores, bundle.qam_weights)


def parser_target(variant: Variant, parser: Parser, samples: SampleSet) -> Target:
    """Everything between a decoded frame with boxes and the parsed people."""

    def call(number: int) -> object:
        sample = samples.samples[number % len(samples.samples)]
        return parser.parse(sample.image, sample.found)

    forget: Callable[[], None] = parser.times.samples_ms.clear  # the stages of the warm-up calls
    name, runtime = f"{variant.label} parser, a frame", parser.engine.runtime
    return Target(name, call, "parser", variant.precision, runtime, samples.mean_people, forget, variant.label)


def baseline_target(model: str, parse: Callable[[NDArray, NDArray, NDArray], object], samples: SampleSet) -> Target:
    """The PyTorch form of a model's parser on the same frames and boxes.

    Args:
        parse: image (H, W, 3) uint8 BGR, boxes (N, 4), box scores (N,) to anything.
    """

    def call(number: int) -> object:
        sample = samples.samples[number % len(samples.samples)]
        return parse(sample.image, sample.found.boxes, sample.found.scores)

    name = f"{model} in PyTorch, a frame"
    return Target(name, call, "baseline", "fp32", "pytorch", samples.mean_people, variant=f"{model} in PyTorch")


def _outputs(engine: Engine, sample: Sample) -> Outputs:
    """The engine's logits (N, C, h, w) and IoU scores (N,) of all people of a frame."""
    parts = [
        engine.run(sample.crops[start : start + MAX_BATCH], sample.found.scores[start : start + MAX_BATCH])
        for start in range(0, len(sample.crops), MAX_BATCH)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in ("logits", "iou_scores")}


Parse = Callable[[Any, Any, Any], Any]  # image, boxes, box scores to (labels with pixel scores, quality)


def open_checked(
    bundle: Bundle, threads: int | None, parser: Parser | None, sample: Sample
) -> tuple[Parse | None, str]:
    """The baseline of a bundle, or None and the reason.

    Args:
        parser: our FP32 parser, kernel tail; None where none may be timed, and then neither may the baseline.
        sample: the frame to compare on.
    """
    if parser is None:
        return None, "there is no FP32 parser to check it against"
    try:
        from qanet.export.baseline import open_baseline  # imports torch

        parse = open_baseline(bundle, threads)
        scored, quality = parse(sample.image, sample.found.boxes, sample.found.scores)
    except (QanetError, RuntimeError, ImportError) as error:
        return None, error.line() if isinstance(error, QanetError) else f"{type(error).__name__}: {error}"
    share = label_share(scored.labels, parser, sample)
    if not np.isfinite(quality).all():
        return None, "its quality is not finite"
    if share < FLOOR:
        return None, f"its labels agree with our FP32 parser on {share:.1%} of the pixels, {FLOOR:.0%} are needed"
    return parse, ""


def label_share(labels: Any, parser: Parser, sample: Sample) -> float:
    """Share of equal labels inside our people's regions; `labels` are N maps (H, W) of the whole image."""
    equal = total = 0
    for theirs, person in zip(labels, parser.every_box(sample.image, sample.found)):
        x0, y0, x1, y1 = person.roi
        equal += int((theirs[y0:y1, x0:x1] == person.labels).sum())
        total += person.labels.size
    return equal / max(total, 1)


PERSONS = (1, 2, 4, 8, 16)
SCALES = (0.5, 0.71, 1.0, 1.41, 2.0)  # of the sides: areas of a quarter to four times
_SHIFT = 3  # pixels between copies of a box, so that they are people of their own


def with_people(sample: Sample, count: int) -> Detections:
    """`count` boxes (N, 4) in a frame: its own in turn, moved a little on each turn, kept inside the image."""
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
) -> dict[str, dict[str, list[SweepPoint]]]:
    """sweep -> label -> points; points without a sample are left out."""
    measured = {m.target.name: m.samples_ms for m in session.measurements}
    found: dict[str, dict[str, list[SweepPoint]]] = {"persons": {}, "area": {}}
    for label, entries in planned.items():
        for sweep, x, target in entries:
            if measured.get(target.name):
                point = SweepPoint(x, latency_of(measured[target.name]))
                found[sweep].setdefault(label, []).append(point)
    return found


def _target(name: str, label: str, parser: Parser, image: np.ndarray, found: Detections) -> Target:
    def call(number: int) -> object:
        return parser.parse(image, found)

    return Target(name, call, "parser", parser.engine.precision, parser.engine.runtime, len(found), variant=label)
