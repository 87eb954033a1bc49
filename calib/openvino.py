"""OpenVINO on the CPU: how a graph is compiled for latency, and the layers that it runs."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qanet import cpu_precision
from qanet.errors import QanetError
from qanet.runtime.engines.base import KERNEL_TAIL_OUTPUTS

if TYPE_CHECKING:
    import openvino

DEVICE = "CPU"
HINT = "INFERENCE_PRECISION_HINT"  # the compile option that decides what floating point computes in
TYPE_NAMES = {"f32": "fp32", "f16": "fp16", "bf16": "bf16", "u8": "int8", "i8": "int8"}  # OpenVINO's name -> ours
PRODUCTS = frozenset({"Convolution", "Deconvolution", "FullyConnected", "MatMul"})  # kinds of layers that multiply
_NO_LAYERS = frozenset({"Const", "Input", "Output"})


@functools.cache
def openvino_core() -> Any:
    """The process's one openvino.Core; QanetError where OpenVINO is not installed."""
    try:
        import openvino  # noqa: F401 cached cores must not hide that it is missing
    except ImportError as error:
        raise QanetError("OpenVINO is not installed", got=error, next_command="pip install openvino") from error
    return cpu_precision.openvino_core()


def version() -> str:
    """OpenVINO's version without the build's number and branch."""
    import openvino

    return str(openvino.__version__.split("-")[0])


def has_tail(outputs: Sequence[str] | None) -> bool:
    """Whether a graph cut to these outputs (None: all) computes more than the logits and the IoU scores."""
    return outputs is None or not set(outputs) <= set(KERNEL_TAIL_OUTPUTS)


def compile_config(hint: str | None = None, threads: int | None = None, counters: bool = False) -> dict[str, Any]:
    """Options of `Core.compile_model` and `import_model`: lowest latency of one request.

    Args:
        hint: what floating point computes in, "f32", "f16" or "bf16"; None leaves the choice to OpenVINO.
        threads: CPU threads; None leaves the choice to OpenVINO.
        counters: measure every layer, which costs a little time.
    """
    config: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
    if hint:
        config[HINT] = hint
    if threads:
        config["INFERENCE_NUM_THREADS"] = threads
    if counters:
        config["PERF_COUNT"] = True
    return config


def compile_graph(
    graph: bytes,
    hint: str,
    outputs: Sequence[str] | None = None,
    threads: int | None = None,
    counters: bool = False,
    name: str = "the graph",
) -> "openvino.CompiledModel":
    """Compile an ONNX graph for this CPU.

    Args:
        graph: ONNX file contents.
        hint, threads, counters: see `compile_config`.
        outputs: keep only these; what feeds nothing else is not computed. None keeps all.
        name: of the graph, in errors.
    Raises:
        QanetError: OpenVINO cannot read or compile the graph, or the graph lacks an output.
    """
    core = openvino_core()
    try:
        model = core.read_model(graph)
        if outputs is not None:
            model = select_outputs(model, outputs)
        return core.compile_model(model, DEVICE, compile_config(hint, threads, counters))
    except RuntimeError as error:
        raise QanetError(f"OpenVINO cannot compile {name}", got=str(error).strip().splitlines()[-1]) from error


def select_outputs(model: "openvino.Model", outputs: Sequence[str]) -> "openvino.Model":
    """A model with only these outputs and the inputs they need; QanetError where it lacks one."""
    import openvino

    known = {port.get_any_name(): port for port in model.outputs}
    missing = [name for name in outputs if name not in known]
    if missing:
        raise QanetError(f"the graph has no output {missing[0]}", expected=", ".join(outputs), got=", ".join(known))
    results = [known[name] for name in outputs]
    needed = _reachable_parameters([port.node for port in results])
    parameters = [p for p in model.get_parameters() if p.get_friendly_name() in needed]
    return openvino.Model(results, parameters, model.get_friendly_name())


def _reachable_parameters(nodes: list[Any]) -> set[str]:
    found: set[str] = set()
    seen: set[str] = set()
    stack = list(nodes)
    while stack:
        node = stack.pop()
        name = node.get_friendly_name()
        if name in seen:
            continue
        seen.add(name)
        if node.get_type_name() == "Parameter":
            found.add(name)
        stack += [port.get_source_output().get_node() for port in node.inputs()]
    return found


@dataclass(frozen=True)
class ExecutedLayer:
    """A layer of a compiled model as it runs.

    Attributes:
        name: in the executed graph, as the performance counters call it.
        kind: "Convolution", "Reorder", ...
        precision: "fp32", "fp16", "bf16" or "int8" (u8 and i8); "" for any other type.
        origins: names of the graph's nodes that were fused into it; empty for an inserted layer.
    """

    name: str
    kind: str
    precision: str
    origins: tuple[str, ...]


def executed_layers(compiled: "openvino.CompiledModel") -> list[ExecutedLayer]:
    """Layers of a compiled model in order of execution, without constants, inputs and outputs."""
    layers = []
    for node in compiled.get_runtime_model().get_ordered_ops():
        facts = {key: str(value.astype(str)) for key, value in node.get_rt_info().items()}
        if facts["layerType"] not in _NO_LAYERS:
            origins = tuple(part for part in facts.get("originalLayersNames", "").split(",") if part)
            precision = TYPE_NAMES.get(facts.get("runtimePrecision", ""), "")
            layers.append(ExecutedLayer(node.get_friendly_name(), facts["layerType"], precision, origins))
    return layers
