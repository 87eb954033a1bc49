"""Profiles: milliseconds and precision of every layer of an engine, from OpenVINO's counters or TensorRT's profiler."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.benchmarks.schema import Block, Layer, Profile
from qanet.benchmarks.variants import Variant
from qanet.calib.placement import block_of
from qanet.runtime.backends.base import Engine
from qanet.runtime.backends.openvino import openvino_core
from qanet.runtime.backends.tensorrt.choice import MODULES


def profile_engine(
    variant: Variant,
    engine: Engine,
    crops: NDArray[np.uint8],
    box_scores: NDArray[np.float32],
    threads: int | None = None,
) -> Profile:
    """One batch, profiled by the runtime; only a reason for a runtime without a profiler."""
    if engine.runtime == "openvino":
        return profile_openvino(variant, crops, box_scores, threads=threads)
    if engine.runtime in MODULES:
        return profile_tensorrt(engine, crops, box_scores)
    return Profile(None, f"{engine.runtime} has no profiler here")


GRAPH = "graph"  # what has no module's name: the input's normalisation, the graph tail
_MODULE = re.compile(r"[A-Za-z_]\w*(?:\.\w+)+")


def block_of_layer(names: Iterable[str]) -> str:
    """The block of the first name that is a module's, GRAPH where none is.

    "backbone.blocks.6.project/WithoutBiases" is of "backbone.blocks.6", "iou_head.fc2.relu" of "iou_head.fc2".
    """
    found = (_MODULE.search(name) for name in names)
    return next((block_of(match.group()) for match in found if match), GRAPH)


def group_layers(layers: Sequence[Layer]) -> list[Block]:
    """The layers by block, slowest first."""
    total = sum(layer.ms for layer in layers)
    blocks: dict[str, list[Layer]] = {}
    for layer in layers:
        blocks.setdefault(layer.block, []).append(layer)
    rows = []
    for block, members in blocks.items():
        by_precision: dict[str, float] = {}
        for layer in members:
            key = layer.precision or "not told"
            by_precision[key] = by_precision.get(key, 0.0) + layer.ms
        ms = sum(layer.ms for layer in members)
        rows.append(
            Block(
                block=block,
                ms=round(ms, 6),
                share=round(ms / total, 6) if total else None,
                layers=len(members),
                ms_by_precision={key: round(value, 6) for key, value in by_precision.items()},
            )
        )
    return sorted(rows, key=lambda row: -row.ms)


def describe_profile(layers: Sequence[Layer], calls: int, source: str) -> Profile:
    """Layers and blocks, slowest first.

    Args:
        calls: over which the layers' times are means.
        source: the profiler and the batch.
    """
    ordered = sorted(layers, key=lambda layer: -layer.ms)
    return Profile(
        source=source,
        calls=calls,
        total_ms=round(sum(layer.ms for layer in layers), 6),
        blocks=group_layers(layers),
        layers=[replace(layer, ms=round(layer.ms, 6)) for layer in ordered],
    )


_OPENVINO_TYPES = {"f32": "fp32", "f16": "fp16", "bf16": "bf16", "u8": "int8", "i8": "int8"}
_WARM_UP = 3


def profile_openvino(
    variant: Variant,
    crops: NDArray[np.uint8],
    box_scores: NDArray[np.float32],
    calls: int = 20,
    threads: int | None = None,
) -> Profile:
    """Compile the variant's graph once more with counters on, which cost a little themselves, and run one batch.

    Args:
        crops, box_scores: (N, H, W, 3) uint8 and (N,) float32; the same batch every call.
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
    known = _facts(compiled)
    layers = [_layer(name, kinds[name], total / calls, known.get(name, {})) for name, total in spent_ms.items()]
    return describe_profile(layers, calls, f"OpenVINO counters, batch {len(crops)}")


def _facts(compiled: Any) -> dict[str, dict[str, str]]:
    """Name of an executed node -> OpenVINO's facts about it."""
    return {
        node.get_friendly_name(): {key: str(value.astype(str)) for key, value in node.get_rt_info().items()}
        for node in compiled.get_runtime_model().get_ordered_ops()
    }


def _layer(name: str, kind: str, ms: float, facts: dict[str, str]) -> Layer:
    origins = [part for part in facts.get("originalLayersNames", "").split(",") if part]
    precision = _OPENVINO_TYPES.get(facts.get("runtimePrecision", ""), "")
    return Layer(name, block_of_layer([*origins, name]), kind, precision, ms)


_TENSORRT_TYPES = {"Int8": "int8", "FP16": "fp16", "Half": "fp16", "BF16": "bf16", "FP32": "fp32", "Float": "fp32"}
_WARM_UP_CALLS = 3


def profile_tensorrt(
    engine: Any, crops: NDArray[np.uint8], box_scores: NDArray[np.float32], calls: int = 20
) -> Profile:
    """Run one batch of an open TensorRT engine again and again, layer by layer.

    Args:
        engine: a TensorRtEngine; afterwards it runs as before.
        crops, box_scores: (N, H, W, 3) uint8 and (N,) float32; the same batch every call.
    """
    spent_ms: dict[str, float] = {}

    def report(layer_name: str, ms: float) -> None:
        spent_ms[layer_name] = spent_ms.get(layer_name, 0.0) + ms

    with engine.profiled(report) as information:
        for _ in range(_WARM_UP_CALLS):
            engine.run(crops, box_scores)
        spent_ms.clear()
        for _ in range(calls):
            engine.run(crops, box_scores)
    facts = layer_precisions(information)
    layers = [
        Layer(name, block_of_layer([name]), facts.get(name, ("", ""))[1], facts.get(name, ("", ""))[0], total / calls)
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
            precision = next((ours for theirs, ours in _TENSORRT_TYPES.items() if theirs.lower() in words.lower()), "")
            found[str(layer.get("Name"))] = (precision, str(layer.get("LayerType", "")))
    return found
