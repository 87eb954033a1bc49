"""OpenVINO on the CPU, the default backend: every fact about it, for the runtime and for the rooms above it.

One process-wide core, the names of number types, what this CPU computes in, how a model is compiled, which engine files
fit this machine, and what an executed layer reports of itself.
"""

import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qanet.bundle import Bundle
from qanet.errors import QanetError
from qanet.files import sha256_bytes
from qanet.runtime.backends.base import GRAPH_TAIL_OUTPUTS, KERNEL_TAIL_OUTPUTS, Origin, Outputs, Reopened, has_tail

if TYPE_CHECKING:
    import openvino

DEVICE = "CPU"
HINT = "INFERENCE_PRECISION_HINT"  # the compile option that decides what floating point computes in
TYPE_NAMES = {"f32": "fp32", "f16": "fp16", "bf16": "bf16", "u8": "int8", "i8": "int8"}  # OpenVINO's name -> ours
PRODUCTS = frozenset({"Convolution", "Deconvolution", "FullyConnected", "MatMul"})  # kinds of layers that multiply
_HINTS = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}
_NO_LAYERS = frozenset({"Const", "Input", "Output"})
_ONE_AT_A_TIME = threading.Lock()
_cores: list[Any] = []
_CONTRACT = (*KERNEL_TAIL_OUTPUTS, *GRAPH_TAIL_OUTPUTS, "boxes", "scores")


def import_openvino() -> Any:
    """The module openvino, imported without its telemetry: every import of it in this project passes here first.

    `import openvino` imports its converter, which reports the import to an analytics service, and writes an identity
    for that into the home of the user. Without the package openvino_telemetry the converter takes a stub of its own
    that does nothing; so that package is hidden while OpenVINO is imported. A program that imported OpenVINO before
    has decided for itself.

    Raises:
        QanetError: OpenVINO is not installed.
    """
    with _ONE_AT_A_TIME:
        if "openvino" in sys.modules and sys.modules["openvino"] is not None:
            return sys.modules["openvino"]
        hidden = "openvino_telemetry"
        before = sys.modules.get(hidden)
        sys.modules[hidden] = None  # type: ignore[assignment]  # Python's own mark of a module that is not to be had
        try:
            import openvino
        except ImportError as error:
            raise QanetError("OpenVINO is not installed", got=error, next_command="pip install openvino") from error
        finally:
            del sys.modules[hidden]
            if before is not None:
                sys.modules[hidden] = before
        return openvino


def openvino_core() -> Any:
    """The one openvino.Core of the process, which is never released.

    OpenVINO's CPU plug-in gives the thread that makes a Core another stack for signals, and takes it away with that
    Core. When several Cores are destroyed in another order than they were made, the thread keeps a stack that no
    longer exists, and the next signal, such as Ctrl-C, ends the process with a segmentation fault (seen with OpenVINO
    2026.4.1).

    Raises:
        QanetError: OpenVINO is not installed.
    """
    openvino = import_openvino()
    with _ONE_AT_A_TIME:
        if not _cores:
            _cores.append(openvino.Core())
        return _cores[0]


def version() -> str:
    """OpenVINO's version without the build's number and branch."""
    return str(import_openvino().__version__.split("-")[0])


def cpu_signature(core: Any) -> str:
    """Names the CPU and its number types; an engine file compiled under another signature is not loaded."""
    capabilities = sorted(core.get_property(DEVICE, "OPTIMIZATION_CAPABILITIES"))
    return f"{core.get_property(DEVICE, 'FULL_DEVICE_NAME')} [{', '.join(capabilities)}]"


def floating_point(core: Any, precision: str, has_tail: bool = False) -> str:
    """The type nearest to a precision that this CPU has in hardware.

    Args:
        core: openvino.Core.
        precision: of the graph: "fp32", "fp16", "bf16", or "int8", whose float layers take 16 bits where they can.
        has_tail: the graph goes on from the logits to the scores. With the hint FP16, OpenVINO runs that part in FP16
            as well, where 1e-6 is zero and the score of an absent part NaN; with BF16 it leaves it in FP32.
    Returns:
        "fp32", "fp16" or "bf16".
    """
    if precision == "fp32":
        return precision
    # Where 16-bit types can only be emulated, slowly, the plugin's own choice is f32.
    if core.get_property(DEVICE, HINT).to_string() == "f32":
        return "fp32"
    has = {name.lower() for name in core.get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")} & {"fp16", "bf16"}
    has -= {"fp16"} if has_tail else set()
    wanted = "bf16" if precision == "int8" else precision
    return wanted if wanted in has else min(has, default="fp32")


def openvino_hint(core: Any, precision: str, has_tail: bool = False) -> str:
    """`floating_point` as a value of the option HINT: "f32", "f16" or "bf16"."""
    return _HINTS[floating_point(core, precision, has_tail)]


def float_rest_hints(core: Any) -> tuple[str, ...]:
    """Hints to choose from for the float layers of an INT8 graph: ("bf16", "f32") where this CPU has BF16, else ().

    BF16 is the default and not always the faster: a CPU may have its instructions without the units that make it
    fast, which OpenVINO does not report; `qanet build` measures it.
    """
    return ("bf16", "f32") if openvino_hint(core, "int8") == "bf16" else ()


def check_type(precision: str) -> None:
    """QanetError where this CPU computes a 16-bit precision in FP32 only: it would be FP32 by another name."""
    if precision in ("fp16", "bf16") and floating_point(openvino_core(), precision) == "fp32":
        raise QanetError(
            f"{precision} cannot run here: this CPU computes FP32 only",
            expected="a CPU with FP16 or BF16, or a GPU",
            got=cpu_signature(openvino_core()),
            next_command="--precision fp32, or auto",
        )


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
    known = {port.get_any_name(): port for port in model.outputs}
    missing = [name for name in outputs if name not in known]
    if missing:
        raise QanetError(f"the graph has no output {missing[0]}", expected=", ".join(outputs), got=", ".join(known))
    results = [known[name] for name in outputs]
    needed = _reachable_parameters([port.node for port in results])
    parameters = [p for p in model.get_parameters() if p.get_friendly_name() in needed]
    return import_openvino().Model(results, parameters, model.get_friendly_name())


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


class OpenVinoEngine(Reopened):
    """A compiled network for this CPU. Calls of several threads take turns: one already keeps every core busy.

    Attributes:
        floating_point: the type of float layers, as OpenVINO names it: "f32", "bf16" or "f16".
        compiled: OpenVINO's own object.
    """

    runtime = "openvino"

    def __init__(self, compiled: "openvino.CompiledModel", precision: str, origin: Origin | None = None):
        self.precision, self.origin = precision, origin
        self.compiled = compiled
        self.floating_point = compiled.get_property(HINT).to_string()
        self.outputs = tuple(_output_name(port) for port in compiled.outputs)
        self._inputs = [port.get_any_name() for port in compiled.inputs]
        self._request, self._turn = compiled.create_infer_request(), threading.Lock()

    def run(self, crops: NDArray[np.uint8], box_scores: NDArray[np.float32]) -> Outputs:
        """See `Engine.run`."""
        feed = {"crops": crops, "box_scores": np.asarray(box_scores, np.float32)}
        with self._turn:  # until the outputs are copied: the request has one place for them
            result = self._request.infer({name: feed[name] for name in self._inputs}, share_inputs=True)
            return {name: result[index] for index, name in enumerate(self.outputs)}


def _output_name(port: Any) -> str:
    """The graph's own name where OpenVINO also gave the port the name of a node that it folded."""
    names = port.get_names()
    return next((name for name in _CONTRACT if name in names), port.get_any_name())


def engine_from_graph(
    graph: bytes,
    precision: str,
    outputs: tuple[str, ...] | None = None,
    threads: int | None = None,
    hint: str | None = None,
) -> OpenVinoEngine:
    """Compile an ONNX graph for this CPU.

    Args:
        graph: ONNX file contents.
        precision: of the graph; a 16-bit type that this CPU lacks is replaced by the nearest it has, see the engine's
            `floating_point`.
        outputs, threads: see `compile_graph`.
        hint: what floating point computes in, in OpenVINO's names, in place of that nearest type.
    Raises:
        QanetError: OpenVINO cannot compile the graph.
    """
    hint = hint or openvino_hint(openvino_core(), precision, has_tail(outputs))
    return OpenVinoEngine(compile_graph(graph, hint, outputs, threads), precision)


def engine_from_bundle(
    bundle: Bundle, precision: str, outputs: tuple[str, ...], threads: int | None = None, graph: str | None = None
) -> OpenVinoEngine:
    """The engine that `qanet build` made for this CPU, version and tail, else the bundle's graph compiled now.

    Args:
        graph: which of the precision's graphs; None for that of the precision's name.

    Raises:
        QanetError: the bundle has neither, a file of it was changed, or this CPU lacks the precision's type.
    """
    graph = graph or precision
    check_type(precision)
    hint = bundle_hint(bundle, precision, outputs)
    for entry in entries_of_this_cpu(bundle, precision):
        if set(entry.get("outputs", ())) == set(outputs) and entry.get("graph", precision) == graph:
            try:
                engine = engine_from_file(bundle.read(entry["file"]), precision, hint, threads, graph)
            except RuntimeError:
                break  # OpenVINO itself refuses the file: compile the graph, which takes a second
            if set(engine.outputs) == set(outputs):
                return engine
            break  # the file is not what its entry says
    engine = engine_from_graph(bundle.stored_graph(graph), precision, outputs, threads, hint)
    engine.origin = _origin(graph, bundle.manifest["files"][bundle.manifest["graphs"][graph]]["sha256"], hint)
    return engine


def engine_from_file(
    data: bytes, precision: str, hint: str, threads: int | None = None, graph: str | None = None
) -> OpenVinoEngine:
    """Load a file that `qanet build` compiled; the file does not record the type of float layers, `hint` does.

    Raises:
        RuntimeError: OpenVINO refuses the file.
    """
    compiled = openvino_core().import_model(data, DEVICE, compile_config(hint, threads))
    return OpenVinoEngine(compiled, precision, _origin(graph or precision, sha256_bytes(data), hint))


def _origin(graph: str, sha256: str, hint: str) -> Origin:
    return Origin(graph, sha256, version(), cpu_signature(openvino_core()), TYPE_NAMES.get(hint, ""))


def bundle_hint(bundle: Bundle, precision: str, outputs: tuple[str, ...] | None) -> str:
    """OpenVINO's hint for what floating point of a bundle's graph computes in on this CPU.

    For INT8 the choice of `qanet build` on this CPU and version of OpenVINO, by measurement or by its option, with
    whichever outputs; in all other cases the nearest type that the CPU has.
    """
    core = openvino_core()
    if precision == "int8":
        known = {"f32", *float_rest_hints(core)}  # a manifest cannot give this CPU another type
        entries = entries_of_this_cpu(bundle, precision)
        exact = [e for e in entries if outputs is not None and set(e.get("outputs", ())) == set(outputs)]
        for entry in (*exact, *entries):
            if entry.get("hint") in known:
                return str(entry["hint"])
    return openvino_hint(core, precision, has_tail(outputs))


def entries_of_this_cpu(bundle: Bundle, precision: str) -> list[dict[str, Any]]:
    """The manifest's entries of engines that this version of OpenVINO built on this CPU."""
    here = ("openvino", precision, version(), cpu_signature(openvino_core()))
    return [e for e in bundle.engines if (e["runtime"], e["precision"], e.get("version"), e.get("cpu")) == here]
