"""What is timed, for every variant that passed its check.

The same crops, boxes and frames go to every variant of a model: sample number k of a round is the same for all.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from qanet.benchmarks.harness import Target, null_target
from qanet.benchmarks.harness.anchor import anchor_target
from qanet.benchmarks.targets.samples import Sample, SampleSet
from qanet.benchmarks.targets.variants import Variant
from qanet.bundle import Bundle
from qanet.quality import clamp_iou, fuse_quality
from qanet.runtime.backends.base import Engine, Outputs
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
    "in three threads; milliseconds a frame are those of the stretch over its frames",
    "anchor": "a fixed matrix product and copy that use nothing of this project: they tell a slow machine from a slow "
    "program",
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
    """The kernel tail and the fusion on the engine's own logits, a frame a call; the first call makes the logits."""
    prepared: list[tuple[Sample, Outputs]] = []

    def call(number: int) -> None:
        if not prepared:  # in the warm-up, where an engine that raises costs this target alone
            prepared.extend([(sample, _outputs(engine, sample)) for sample in samples.samples])
        sample, outputs = prepared[number % len(prepared)]
        run_tail(variant.bundle, sample, outputs)

    name = f"{variant.label} tail, a frame"
    return Target(name, call, "tail", variant.precision, engine.runtime, samples.mean_people, variant=variant.label)


def run_tail(bundle: Bundle, sample: Sample, outputs: Outputs) -> None:
    """What follows the engine, for a frame's people: labels and pixel scores, then the fusion."""
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
