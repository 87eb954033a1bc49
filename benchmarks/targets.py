"""What is timed, for every precision that passed its output check.

The same crops, boxes and frames go to every precision: sample number k of a round is the same for all.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from qanet.benchmarks.harness import Target, null_target
from qanet.benchmarks.samples import Sample, SampleSet
from qanet.bundle import Bundle
from qanet.quality import clamp_iou, fuse_quality
from qanet.runtime.engines.base import Engine, Outputs
from qanet.runtime.parser import MAX_BATCH, Parser
from qanet.runtime.pixel_score import pixel_score

Batch = tuple[NDArray[np.uint8], NDArray[np.float32]]  # crops (B, H, W, 3) uint8, box scores (B,) float32

TIMED = {
    "engine": "uint8 crops and box scores in host memory to the network's outputs in host memory; on a GPU both "
    "copies are inside; the crops are made before",
    "tail": "logits and boxes of a frame's people to labels at image resolution, pixel scores and fused quality",
    "parser": "a decoded frame and its boxes to the parsed people: crop, engine, tail and suppression of duplicates",
    "null": "a call that does nothing: what the harness adds to every sample",
}
NOT_TIMED = (
    "opening and compiling the engines, and the warm-up calls before the first round",
    "decoding and person detection (their durations while the samples were gathered are given apart)",
    "drawing, encoding and writing; tracking from frame to frame",
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
    bundle: Bundle, engines: dict[str, Engine], samples: SampleSet
) -> tuple[list[Target], dict[str, Parser]]:
    """The null target, and per precision the engine alone (one crop; the mean people count), tail, whole parser.

    Returns:
        The targets, kind by kind so that the precisions of one kind follow each other, and the parsers whose
        `times` hold the stages of the whole-parser target.
    """
    mean = mean_batch(samples)
    parsers = {precision: Parser(bundle, engine) for precision, engine in engines.items()}
    targets = [null_target()]
    for size in sorted({1, mean}):
        prepared = batches(samples, size)
        targets += [engine_target(precision, engine, prepared, size) for precision, engine in engines.items()]
    targets += [tail_target(bundle, precision, engine, samples) for precision, engine in engines.items()]
    targets += [parser_target(precision, parser, samples) for precision, parser in parsers.items()]
    return targets, parsers


def engine_target(precision: str, engine: Engine, prepared: list[Batch], size: int) -> Target:
    """The network alone at one batch size."""

    def call(number: int) -> Outputs:
        return engine.run(*prepared[number % len(prepared)])

    return Target(f"{precision} engine, batch {size}", call, "engine", precision, engine.runtime, size)


def tail_target(bundle: Bundle, precision: str, engine: Engine, samples: SampleSet) -> Target:
    """The kernel tail and the fusion on the engine's own logits, a frame a call; the first call makes the logits."""
    prepared: list[tuple[Sample, Outputs]] = []

    def call(number: int) -> None:
        if not prepared:  # in the warm-up, where an engine that raises costs this target alone
            prepared.extend([(sample, _outputs(engine, sample)) for sample in samples.samples])
        sample, outputs = prepared[number % len(prepared)]
        scored = pixel_score(outputs["logits"], sample.grown, sample.image.shape[:2], bundle.threshold)
        iou, box = clamp_iou(outputs["iou_scores"]), np.clip(sample.found.scores, 0, 1)
        fuse_quality(box, iou, scored.pixel_scores, bundle.qam_weights)
        fuse_quality(box[:, None], iou[:, None], scored.part_scores, bundle.qam_weights)

    return Target(f"{precision} tail, a frame", call, "tail", precision, engine.runtime, samples.mean_people)


def parser_target(precision: str, parser: Parser, samples: SampleSet) -> Target:
    """Everything between a decoded frame with boxes and the parsed people."""

    def call(number: int) -> object:
        sample = samples.samples[number % len(samples.samples)]
        return parser.parse(sample.image, sample.found)

    forget: Callable[[], None] = parser.times.samples_ms.clear  # the stages of the warm-up calls
    name, runtime = f"{precision} parser, a frame", parser.engine.runtime
    return Target(name, call, "parser", precision, runtime, samples.mean_people, forget)


def _outputs(engine: Engine, sample: Sample) -> Outputs:
    """The engine's logits (N, C, h, w) and IoU scores (N,) of all people of a frame."""
    parts = [
        engine.run(sample.crops[start : start + MAX_BATCH], sample.found.scores[start : start + MAX_BATCH])
        for start in range(0, len(sample.crops), MAX_BATCH)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in ("logits", "iou_scores")}
