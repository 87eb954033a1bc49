"""The pieces: a person's crop, the network at each precision, the tail of a frame."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from qanet import geometry
from qanet.benchmarks.harness import Target
from qanet.benchmarks.micro.table import Piece
from qanet.benchmarks.targets.samples import SampleSet
from qanet.benchmarks.targets.timed import batches, run_tail
from qanet.benchmarks.targets.variants import Variant
from qanet.runtime.backends.base import Engine
from qanet.runtime.kernels import choose_kernels

Crop = Callable[[NDArray[np.uint8], NDArray[np.float32], tuple[int, int]], NDArray[np.uint8]]
_CROPS: tuple[tuple[str, Crop], ...] = (
    ("crop", choose_kernels().crop_people),
    ("crop by OpenCV", geometry.crop_people),
)


def plan_pieces(
    variants: Sequence[Variant],
    engines: Mapping[str, Engine],
    samples: Mapping[str, SampleSet],
    multiply_adds: Callable[[Variant], float],
) -> tuple[list[Target], list[Piece]]:
    """Targets and what each needs at least.

    Args:
        multiply_adds: of a variant's network for one crop.
    """
    targets: list[Target] = []
    pieces: list[Piece] = []
    for model in dict.fromkeys(variant.model for variant in variants):
        first = next(v for v in variants if v.model == model)
        crops = [_crop_piece(first, samples[model], *form) for form in _CROPS]
        mine = [v for v in variants if v.model == model and v.label in engines]
        networks = [_network_piece(v, engines[v.label], samples[model], multiply_adds(v)) for v in mine]
        kernel = next((v for v in mine if v.tail == "kernel"), None)
        tail = [_tail_piece(kernel, engines[kernel.label], samples[model])] if kernel else []
        for target, piece in [*crops, *networks, *tail]:
            targets.append(target)
            pieces.append(piece)
    return targets, pieces


def _crop_piece(variant: Variant, samples: SampleSet, form: str, crop: Crop) -> tuple[Target, Piece]:
    """Read the pixels under the box once, write the crop once."""
    sample = max(samples.samples, key=lambda s: len(s.found))
    box, hw = sample.grown[:1], variant.bundle.input_hw
    name = f"{variant.model} {form}, one person"

    def call(number: int) -> object:
        return crop(sample.image, box, hw)

    height, width = sample.image.shape[:2]
    low, high = np.clip(box[0, :2], 0, [width, height]), np.clip(box[0, 2:], 0, [width, height])
    read = float(np.prod(np.maximum(high - low, 0))) * 3
    return Target(name, call, "micro"), Piece(name, read + 3 * hw[0] * hw[1], note="box read once, crop written once")


def _network_piece(variant: Variant, engine: Engine, samples: SampleSet, multiply_adds: float) -> tuple[Target, Piece]:
    """Read the graph's weights and the crop once, do every multiply-add at the best rate."""
    (crops, scores), *_ = batches(samples, 1)
    name = f"{variant.label} network, one crop"

    def call(number: int) -> object:
        return engine.run(crops, scores)

    file = variant.bundle.manifest["graphs"][variant.precision]
    moved = variant.bundle.manifest["files"][file]["bytes"] + crops.nbytes
    note = "weights and crop read once; every multiply-add at the rate of a large convolution"
    return Target(name, call, "micro", variant.precision, engine.runtime), Piece(
        name, float(moved), multiply_adds, variant.precision, note
    )


def _tail_piece(variant: Variant, engine: Engine, samples: SampleSet) -> tuple[Target, Piece]:
    """Read the logits once, write every label of the people's regions once."""
    sample = max(samples.samples, key=lambda s: len(s.found))
    count = min(len(sample.crops), 1)
    outputs = engine.run(sample.crops[:count], sample.found.scores[:count])
    one = type(sample)(
        sample.name, sample.image, sample.found.take(slice(0, count)), sample.grown[:count], sample.crops[:count]
    )
    name = f"{variant.model} tail, one person"

    def call(number: int) -> None:
        run_tail(variant.bundle, one, outputs)

    height, width = sample.image.shape[:2]
    low, high = np.clip(one.grown[0, :2], 0, [width, height]), np.clip(one.grown[0, 2:], 0, [width, height])
    labels = float(np.prod(np.maximum(high - low, 0)))
    return Target(name, call, "micro"), Piece(
        name, float(outputs["logits"].nbytes) + labels, note="logits read once, labels written once"
    )
