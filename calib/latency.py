"""Milliseconds of OpenVINO on this CPU: of whole graphs in turns, and of a graph's blocks by OpenVINO's counters."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median
from typing import Any

import numpy as np

from qanet.calib.placement import block_of
from qanet.errors import QanetError
from qanet.runtime.backends.base import KERNEL_TAIL_OUTPUTS
from qanet.runtime.backends.openvino import ExecutedLayer, compile_graph, executed_layers, openvino_core, openvino_hint

_WARM_UP = 2
Samples = dict[str, list[float]]  # name -> milliseconds, one value per round


def samples_in_turns(
    calls: Mapping[str, Callable[[], Any]],
    rounds: tuple[int, int] = (9, 60),
    seconds: float = 3.0,
    clock: Callable[[], float] = time.perf_counter,
) -> Samples:
    """Time each call, round after round, every second round in reverse order.

    Other work on the machine, and the drift of its clock rate, then affect all calls alike.

    Args:
        calls: name -> the function to time.
        rounds: fewest and most rounds.
        seconds: after which no round begins beyond the fewest.
        clock: current time in seconds.
    """
    for _ in range(_WARM_UP):
        for call in calls.values():
            call()
    samples: Samples = {name: [] for name in calls}
    begin = clock()
    for number in range(rounds[1]):
        if number >= rounds[0] and clock() - begin >= seconds:
            break
        for name in list(calls)[:: -1 if number % 2 else 1]:
            start = clock()
            calls[name]()
            samples[name].append((clock() - start) * 1e3)
    return samples


def network_latency_ms(
    graphs: Mapping[str, tuple[bytes, str]], input_hw: tuple[int, int], rounds: int = 30, threads: int | None = None
) -> dict[str, float]:
    """Median latency of one crop for each graph, by `samples_in_turns`.

    Args:
        graphs: name -> (ONNX file's contents, its precision: fp32, bf16, int8, ...).
        input_hw: crop size (H, W) pixels.
        rounds: measured runs of each graph.
        threads: None lets OpenVINO choose.
    Returns:
        name -> milliseconds; the graph outputs are `logits` and `iou_scores` where the graph has both, else all.
    """
    feed = _feed(input_hw)
    calls: dict[str, Callable[[], Any]] = {}
    for name, (data, precision) in graphs.items():
        request = _compile(data, precision, threads).create_infer_request()
        inputs = {port: feed[port] for port in _inputs(request)}
        calls[name] = partial(request.infer, inputs, share_inputs=True)
    return {name: median(values) for name, values in samples_in_turns(calls, (rounds, rounds)).items()}


def block_latency_ms(
    graphs: Mapping[str, tuple[bytes, str]],
    blocks: Sequence[str],
    input_hw: tuple[int, int],
    rounds: int = 40,
    threads: int | None = None,
) -> dict[str, dict[str, float]]:
    """Time of each block in one crop's inference, by OpenVINO's performance counters, the graphs in turns.

    The least time of each layer over the rounds, summed: interruptions, which are all that differs between runs on a
    busy machine, drop out. A fused layer counts for the block of the first convolution or sum in it; layers that
    belong to no block are left out.

    Args:
        graphs: name -> (ONNX file's contents, its precision).
    Returns:
        name -> block -> milliseconds.
    """
    feed = _feed(input_hw)
    runs = []
    for name, (data, precision) in graphs.items():
        compiled = _compile(data, precision, threads, counters=True)
        owners = {layer.name: _owner(layer, set(blocks)) for layer in executed_layers(compiled)}
        runs.append((name, compiled.create_infer_request(), {k: block for k, block in owners.items() if block}))
    least: dict[str, dict[str, float]] = {name: {} for name in graphs}
    for _ in range(_WARM_UP + rounds):
        for name, request, owner in runs:
            request.infer({port: feed[port] for port in _inputs(request)}, share_inputs=True)
            for layer in request.profiling_info:
                if layer.node_name in owner:
                    spent = layer.real_time.total_seconds() * 1e3
                    least[name][layer.node_name] = min(spent, least[name].get(layer.node_name, spent))
    spent_ms = {name: dict.fromkeys(blocks, 0.0) for name in graphs}
    for name, _, owner in runs:
        for layer_name, value in least[name].items():
            spent_ms[name][owner[layer_name]] += value
    return spent_ms


def _owner(layer: ExecutedLayer, blocks: set[str]) -> str | None:
    """The block of an executed layer."""
    # an inserted reorder has the names of the layers around it, or none
    for name in (*layer.origins, layer.name):
        block = block_of(name.split("/")[0])
        if block in blocks:
            return block
    return None


def _compile(graph: bytes, precision: str, threads: int | None, counters: bool = False) -> Any:
    """The graph, cut to the inputs of the kernel tail where it has them: the rest is then not computed."""
    core = openvino_core()
    try:
        names = {port.get_any_name() for port in core.read_model(graph).outputs}
    except RuntimeError as error:
        raise QanetError("OpenVINO cannot compile the graph", got=str(error).strip().splitlines()[-1]) from error
    outputs = KERNEL_TAIL_OUTPUTS if names.issuperset(KERNEL_TAIL_OUTPUTS) else None
    return compile_graph(graph, openvino_hint(core, precision), outputs, threads, counters)


def _inputs(request: Any) -> list[str]:
    return [port.get_any_name() for port in request.model_inputs]


def _feed(input_hw: tuple[int, int]) -> dict[str, Any]:
    """One crop of smooth random colours, and its box score."""
    height, width = input_hw
    coarse = np.random.default_rng(0).integers(0, 256, (1, -(-height // 16), -(-width // 16), 3)).astype(np.uint8)
    crop = coarse.repeat(16, 1).repeat(16, 2)[:, :height, :width]
    return {"crops": np.ascontiguousarray(crop), "box_scores": np.ones(1, np.float32)}
