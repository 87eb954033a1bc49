"""OpenVINO's own counters: milliseconds of every executed layer, beside the precision it ran in."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.benchmarks.profile.blocks import Layer, block_of, describe_profile
from qanet.benchmarks.targets.variants import Variant
from qanet.runtime.backends.openvino import openvino_core

_TYPES = {"f32": "fp32", "f16": "fp16", "bf16": "bf16", "u8": "int8", "i8": "int8"}
_WARM_UP = 3


def profile_openvino(
    variant: Variant,
    crops: NDArray[np.uint8],
    box_scores: NDArray[np.float32],
    calls: int = 20,
    threads: int | None = None,
) -> dict[str, Any]:
    """Compile the variant's graph once more with counters on, which cost a little themselves, and run one batch.

    Args:
        crops, box_scores: (N, H, W, 3) uint8 and (N,) float32; the same batch every call.
    Returns:
        See `describe_profile`.
    """

    from qanet.runtime.backends.openvino import bundle_hint, select_outputs
    from qanet.runtime.backends.select import graphs_of

    core = openvino_core()
    model = select_outputs(
        core.read_model(variant.bundle.graph(graphs_of(variant.bundle, variant.precision)[0])), variant.outputs
    )
    hint = bundle_hint(variant.bundle, variant.precision, variant.outputs)
    config: dict[str, Any] = {"PERF_COUNT": True, "INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY"}
    if threads:
        config["INFERENCE_NUM_THREADS"] = threads
    compiled = core.compile_model(model, "CPU", config)
    request = compiled.create_infer_request()
    names = {port.get_any_name() for port in compiled.inputs}
    feed = {key: value for key, value in (("crops", crops), ("box_scores", box_scores)) if key in names}
    for _ in range(_WARM_UP):
        request.infer(feed)
    spent_ms: dict[str, float] = {}
    kinds: dict[str, str] = {}
    for _ in range(calls):
        request.infer(feed)
        for entry in request.get_profiling_info():
            if str(entry.status).endswith("EXECUTED"):
                spent_ms[entry.node_name] = spent_ms.get(entry.node_name, 0.0) + entry.real_time.total_seconds() * 1e3
                kinds[entry.node_name] = entry.node_type
    known = _told(compiled)
    layers = [_layer(name, kinds[name], total / calls, known.get(name, {})) for name, total in spent_ms.items()]
    return describe_profile(layers, calls, f"OpenVINO counters, batch {len(crops)}")


def _told(compiled: Any) -> dict[str, dict[str, str]]:
    """Name of an executed node -> what OpenVINO says of it."""
    return {
        node.get_friendly_name(): {key: str(value.astype(str)) for key, value in node.get_rt_info().items()}
        for node in compiled.get_runtime_model().get_ordered_ops()
    }


def _layer(name: str, kind: str, ms: float, told: dict[str, str]) -> Layer:
    origins = [part for part in told.get("originalLayersNames", "").split(",") if part]
    precision = _TYPES.get(told.get("runtimePrecision", ""), "")
    return Layer(name, block_of([*origins, name]), kind, precision, ms)
