"""Builds engines for this CPU with OpenVINO, and reports the precision that they really compute in."""

import time
from collections.abc import Sequence
from typing import Any

from qanet.errors import QanetError
from qanet.export.backends.census import BuiltEngine, EngineLayer, Report, take_census
from qanet.export.graphs.source import compute_nodes, load_graph
from qanet.runtime.backends.base import KERNEL_TAIL_OUTPUTS, has_tail
from qanet.runtime.backends.openvino import (
    DEVICE,
    HINT,
    PRODUCTS,
    executed_layers,
    floating_point,
    openvino_core,
    openvino_hint,
    version,
)

_PRECISIONS = ("fp32", "fp16", "bf16", "int8")
_BYTES = {"Transpose", "Convert"}
_MOVES = {"Reorder", *_BYTES}


def deliverable(precision: str, outputs: Sequence[str] | None = KERNEL_TAIL_OUTPUTS) -> str:
    """The precision in which a graph typed `precision` computes on this CPU.

    Args:
        precision: of the graph: "fp32", "fp16", "bf16" or "int8".
        outputs: kept by the engine, None for all; see `qanet.runtime.backends.openvino` for why they matter.

    Returns:
        The same, or "bf16", "fp16" or "fp32" for a 16-bit type that this CPU does not have.

    Raises:
        QanetError: unknown precision, or OpenVINO is not installed.
    """
    if precision not in _PRECISIONS:
        raise QanetError(f"OpenVINO has no precision {precision!r}; choose from {', '.join(_PRECISIONS)}")
    return precision if precision in ("fp32", "int8") else floating_point(openvino_core(), precision, has_tail(outputs))


def build(
    graph: bytes,
    *,
    precision: str,
    outputs: Sequence[str] | None = None,
    hint: str | None = None,
    name: str = "model.onnx",
    report: Report | None = None,
) -> BuiltEngine:
    """Compile a typed ONNX graph for the CPU of this machine.

    FP32 graphs run in FP32 even where BF16 would be faster; the layers of an INT8 graph that are not quantised, and
    FP16 and BF16 graphs, run in the 16-bit type this CPU has, or in FP32 when it has none or `hint` asks for it: see
    the census. The blob holds code for this processor's instruction set and fits no other OpenVINO version; where it
    does not fit, the loader compiles the ONNX graph again, with `options`.

    Args:
        graph: contents of an ONNX file with the inputs `crops` uint8 (N, H, W, 3) and `box_scores` float32 (N,).
        precision: of the graph: "fp32", "fp16", "bf16" or "int8".
        outputs: the graph's outputs to keep; None keeps all.
        hint: what floating point computes in, as OpenVINO names it; None: the nearest to `precision` that the CPU has.
        name: of the graph, for reports and errors.
        report: called with one line at each step.

    Raises:
        QanetError: OpenVINO is missing, unknown precision, or a graph it cannot compile.
    """
    started = time.perf_counter()
    say = report or (lambda line: None)
    core = openvino_core()
    expected = deliverable(precision, outputs)
    model = load_graph(graph, outputs, name)
    nodes = compute_nodes(model)
    aliases = _aliases(model)
    hint = hint or openvino_hint(core, precision, has_tail(outputs))
    say(f"compiling {name} with OpenVINO {version()} in {hint}")
    try:
        network = core.read_model(model.SerializeToString())
        compiled = core.compile_model(network, DEVICE, {HINT: hint})
        data = compiled.export_model().getvalue()
    except RuntimeError as error:
        raise QanetError(f"OpenVINO cannot compile {name}", got=str(error)[-600:]) from error
    note = f"{precision} was asked for, this CPU computes in {expected}" if expected != precision else ""
    if not data:
        raise QanetError(f"OpenVINO made an empty engine of {name}")
    layers = _layers(compiled, aliases, quantized=precision == "int8")
    census = take_census(layers, nodes, note)
    seconds = time.perf_counter() - started
    say(f"built {len(data) / (1 << 20):.1f} MiB in {seconds:.1f} s")
    return BuiltEngine(
        data=data,
        runtime="openvino",
        version=version(),
        targets=(f"cpu-{core.get_property(DEVICE, 'DEVICE_ARCHITECTURE')}",),
        census=census,
        seconds=seconds,
        messages=(note,) if note else (),
        inputs=tuple(value.name for value in model.graph.input),
        outputs=tuple(value.name for value in model.graph.output),
        options={HINT: hint},
        requires=_requirements(compiled),
    )


def _aliases(model: Any) -> dict[str, str]:
    """OpenVINO's possible names of an ONNX node -> the node's name; renames nodes it would confuse with an output.

    OpenVINO calls a node that writes an output after the output (and then gives up another node's equal name), the
    product inside a Gemm after both, and a node whose type conversion became pointless after the conversion.
    """
    outputs = {value.name for value in model.graph.output}
    names: dict[str, str] = {}
    for node in model.graph.node:  # in topological order: what a conversion reads is named before it
        origin = names.get(node.input[0], node.name) if node.op_type in ("Cast", "Identity") else node.name
        if node.name in outputs and node.name != node.output[0]:
            node.name += f".{node.op_type.lower()}"
        names |= {node.output[0]: origin, f"{node.name}/WithoutBiases": origin, node.name: origin}
    return names


def _layers(compiled: Any, aliases: dict[str, str], quantized: bool) -> list[EngineLayer]:
    """The layers of a compiled model for the census."""
    layers = []
    for layer in executed_layers(compiled):
        precision = layer.precision or "other"
        if precision == "int8" and (layer.kind in _BYTES or not quantized):
            precision = "other"  # bytes of the image, of labels and of truth values are no INT8 arithmetic
        layers.append(
            EngineLayer(
                name=layer.name,
                nodes=tuple(dict.fromkeys(aliases.get(origin, origin) for origin in layer.origins)),
                precision=precision,
                computes=layer.kind in PRODUCTS,
                moves=layer.kind in _MOVES,
                quantizes=layer.kind == "FakeQuantize",
            )
        )
    return layers


def _requirements(compiled: Any) -> str:
    """OpenVINO's version and the instruction set that the blob declares; "" from older versions."""
    name = "RUNTIME_REQUIREMENTS"
    return str(compiled.get_property(name)) if name in compiled.get_property("SUPPORTED_PROPERTIES") else ""
