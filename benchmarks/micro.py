"""Pieces of the parser by themselves, each with its floor: the least time that this machine needs for it.

The floor is the longer of two: the bytes that the piece must move at the rate of a large copy, and the multiply-adds
that it must do at the rate of a large convolution. Both rates are measured.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet import geometry
from qanet.benchmarks.harness import Session, Target, latency_of
from qanet.benchmarks.samples import SampleSet
from qanet.benchmarks.schema import MicroRow
from qanet.benchmarks.targets import batches, run_tail
from qanet.benchmarks.variants import Variant
from qanet.runtime.backends.base import Engine
from qanet.runtime.backends.openvino import import_openvino, openvino_core, openvino_hint
from qanet.runtime.kernels import choose_kernels


@dataclass(frozen=True)
class Piece:
    """The least work of a piece.

    Attributes:
        target: the name of the target that times it.
        bytes_moved: read and written at least once.
        multiply_adds: 0 where the bytes decide.
        precision: whose rate of multiply-adds counts.
    """

    target: str
    bytes_moved: float
    multiply_adds: float = 0.0
    precision: str = ""
    note: str = ""


def floor_ms(piece: Piece, bytes_per_second: float, rates: Mapping[str, float]) -> tuple[float, str]:
    """Milliseconds that the machine needs at least, and whether "bytes" or "multiply-adds" decide."""
    by_bytes = piece.bytes_moved / bytes_per_second * 1e3
    rate = rates.get(piece.precision)
    by_products = piece.multiply_adds / rate * 1e3 if rate and piece.multiply_adds else 0.0
    return (by_products, "multiply-adds") if by_products > by_bytes else (by_bytes, "bytes")


def rows_of(
    pieces: Sequence[Piece], session: Session, bytes_per_second: float, rates: Mapping[str, float]
) -> list[MicroRow]:
    """A row per piece: its latency and its floor."""
    measured = {m.target.name: m for m in session.measurements}
    rows = []
    for piece in pieces:
        measurement = measured.get(piece.target)
        latency = latency_of(measurement.samples_ms if measurement else [])
        floor, by = floor_ms(piece, bytes_per_second, rates)
        rows.append(
            MicroRow(
                target=piece.target,
                latency_ms=latency,
                bytes_moved=round(piece.bytes_moved),
                multiply_adds=round(piece.multiply_adds),
                floor_ms=round(floor, 6),
                floor_by=by,
                times_floor=round(latency.p50 / floor, 3) if latency.p50 and floor else None,
                error=measurement.error if measurement else None,
                note=piece.note,
            )
        )
    return rows


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


_COPIED = 64 << 20  # bytes: beyond any cache
_SIDE = 1024  # of the matrix product
_REPEATS = 5


def copy_bytes_per_second(clock: Callable[[], float] = time.perf_counter) -> float:
    """Bytes that a large copy moves, read and written ones counted, by one thread; the best of a few."""
    source, target = np.ones(_COPIED, np.uint8), np.zeros(_COPIED, np.uint8)
    return 2 * _COPIED / _best(lambda: np.copyto(target, source), clock)


def multiply_adds_per_second(
    precision: str, threads: int | None = None, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Multiply-adds of a large convolution in OpenVINO at a precision; the best of a few.

    Args:
        precision: "fp32", "fp16" (in the CPU's 16-bit type) or "int8" (symmetric, with quantised inputs and weights).
    """
    openvino = import_openvino()
    ops = openvino.opset13

    channels, side = 256, 32
    crops = ops.parameter([1, channels, side, side], np.float32)
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((channels, channels, 3, 3)).astype(np.float32)
    node, kernel = crops, ops.constant(weights)
    if precision == "int8":
        node = ops.fake_quantize(crops, np.float32(-4), np.float32(4), np.float32(-4), np.float32(4), 256)
        bound = np.float32(np.abs(weights).max())
        kernel = ops.fake_quantize(kernel, -bound, bound, -bound, bound, 255)
    product = ops.convolution(node, kernel, [1, 1], [1, 1], [1, 1], [1, 1])
    core = openvino_core()
    config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": openvino_hint(core, precision)}
    if threads:
        config["INFERENCE_NUM_THREADS"] = threads
    compiled = core.compile_model(openvino.Model([product], [crops]), "CPU", config)
    request = compiled.create_infer_request()
    feed = {0: rng.standard_normal((1, channels, side, side)).astype(np.float32)}
    request.infer(feed)
    return channels * channels * 9 * side * side / _best(lambda: request.infer(feed), clock)


def _best(call: Callable[[], object], clock: Callable[[], float]) -> float:
    """Seconds of the fastest of a few calls."""
    seconds = []
    for _ in range(_REPEATS):
        begin = clock()
        call()
        seconds.append(clock() - begin)
    return max(min(seconds), 1e-9)
