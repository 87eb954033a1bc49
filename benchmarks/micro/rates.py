"""What this machine can do at best, measured: bytes a second of a copy, multiply-adds a second by precision."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from qanet.runtime.backends.openvino import openvino_core, openvino_hint

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
    import openvino
    from openvino import opset13 as ops

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
