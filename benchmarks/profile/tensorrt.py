"""TensorRT's profiler: milliseconds of every layer of an engine, beside the precision its inspector tells."""

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.benchmarks.profile.blocks import Layer, block_of, describe_profile

_TYPES = {"Int8": "int8", "FP16": "fp16", "Half": "fp16", "BF16": "bf16", "FP32": "fp32", "Float": "fp32"}
_WARM_UP = 3


def profile_tensorrt(
    engine: Any, crops: NDArray[np.uint8], box_scores: NDArray[np.float32], calls: int = 20
) -> dict[str, Any]:
    """Run one batch of an open TensorRT engine again and again, layer by layer.

    Args:
        engine: a TensorRtEngine; afterwards it runs as before.
        crops, box_scores: (N, H, W, 3) uint8 and (N,) float32; the same batch every call.
    Returns:
        See `describe_profile`.
    """
    spent_ms: dict[str, float] = {}

    def report(layer_name: str, ms: float) -> None:
        spent_ms[layer_name] = spent_ms.get(layer_name, 0.0) + ms

    with engine.profiled(report) as information:
        for _ in range(_WARM_UP):
            engine.run(crops, box_scores)
        spent_ms.clear()
        for _ in range(calls):
            engine.run(crops, box_scores)
    told = layer_precisions(information)
    layers = [
        Layer(name, block_of([name]), told.get(name, ("", ""))[1], told.get(name, ("", ""))[0], total / calls)
        for name, total in spent_ms.items()
    ]
    return describe_profile(layers, calls, f"TensorRT profiler, batch {len(crops)}")


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
