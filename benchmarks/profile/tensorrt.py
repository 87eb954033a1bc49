"""TensorRT's profiler: milliseconds of every layer of an engine, beside the precision its inspector tells."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from qanet.benchmarks.profile.blocks import Layer, block_of, describe_profile

_TYPES = {"Int8": "int8", "FP16": "fp16", "Half": "fp16", "BF16": "bf16", "FP32": "fp32", "Float": "fp32"}
_WARM_UP = 3


def profile_tensorrt(
    library: Any, contexts: Sequence[Any], run: Callable[[], object], information: str | None, calls: int = 20
) -> dict[str, Any]:
    """Attach a profiler to an engine's execution contexts and run one batch again and again.

    Args:
        library: the module tensorrt or tensorrt_rtx.
        contexts: of the engine; their profilers are taken off again.
        run: executes one batch through one of them, not as a CUDA graph, whose layers report nothing.
        information: what the engine inspector says in JSON, for the precisions; None where it says nothing.
    Returns:
        See `describe_profile`.
    """
    spent_ms: dict[str, float] = {}

    class Profiler(library.IProfiler):
        """Adds up what TensorRT reports after every execution."""

        def __init__(self) -> None:
            library.IProfiler.__init__(self)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            spent_ms[layer_name] = spent_ms.get(layer_name, 0.0) + ms

    profiler = Profiler()  # TensorRT keeps no reference
    for context in contexts:
        context.profiler = profiler
    try:
        for _ in range(_WARM_UP):
            run()
        spent_ms.clear()
        for _ in range(calls):
            run()
    finally:
        for context in contexts:
            context.profiler = None
    told = layer_precisions(information)
    layers = [
        Layer(name, block_of([name]), told.get(name, ("", ""))[1], told.get(name, ("", ""))[0], total / calls)
        for name, total in spent_ms.items()
    ]
    return describe_profile(layers, calls, "TensorRT profiler")


def layer_precisions(information: str | None) -> dict[str, tuple[str, str]]:
    """Layer -> (precision of its first output, kind), from the inspector's JSON; empty where it has no detail."""
    try:
        layers = json.loads(information or "")["Layers"]
    except (ValueError, KeyError, TypeError):
        return {}
    found = {}
    for layer in layers:
        if isinstance(layer, dict):  # without detailed verbosity layers are names only
            outputs = layer.get("Outputs") or [{}]
            words = str(outputs[0].get("Format/Datatype", ""))
            precision = next((ours for theirs, ours in _TYPES.items() if theirs.lower() in words.lower()), "")
            found[str(layer.get("Name"))] = (precision, str(layer.get("LayerType", "")))
    return found
