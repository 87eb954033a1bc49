"""OpenVINO on the CPU: the embedded default."""

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qanet.bundle import Bundle
from qanet.errors import QanetError
from qanet.files import sha256_bytes
from qanet.runtime.backends.base import GRAPH_TAIL_OUTPUTS, KERNEL_TAIL_OUTPUTS, Origin, Outputs

if TYPE_CHECKING:
    import openvino


_CONTRACT = (*KERNEL_TAIL_OUTPUTS, *GRAPH_TAIL_OUTPUTS, "boxes", "scores")
_COMPUTES_IN = {"f32": "fp32", "f16": "fp16", "bf16": "bf16"}


class OpenVinoEngine:
    """A compiled network for this CPU."""

    runtime = "openvino"

    def __init__(self, compiled: "openvino.CompiledModel", precision: str, origin: Origin | None = None):
        self.precision, self.origin = precision, origin
        self.compiled = compiled
        self.floating_point = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()  # f32, bf16 or f16
        self.outputs = tuple(_name(port) for port in compiled.outputs)
        self._inputs = [port.get_any_name() for port in compiled.inputs]
        self._request = compiled.create_infer_request()

    def run(self, crops: NDArray[np.uint8], box_scores: NDArray[np.float32]) -> Outputs:
        """See `Engine.run`."""
        feed = {"crops": crops, "box_scores": np.asarray(box_scores, np.float32)}
        result = self._request.infer({name: feed[name] for name in self._inputs}, share_inputs=True)
        return {name: result[index] for index, name in enumerate(self.outputs)}


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
        precision: of the graph; a 16-bit type that this CPU lacks is replaced by the nearest it has, and
            `floating_point` says so.
        outputs: keep only these; what feeds nothing else is not computed.
        threads: CPU threads; None lets OpenVINO choose.
        hint: what floating point computes in, as OpenVINO names it, in place of that nearest type.
    Raises:
        QanetError: not a graph OpenVINO reads.
    """

    core = openvino_core()
    try:
        model = core.read_model(graph)
        if outputs is not None:
            model = select_outputs(model, outputs)
        config = _config(hint or openvino_hint(core, precision, _has_tail(outputs)), threads)
        return OpenVinoEngine(core.compile_model(model, "CPU", config), precision)
    except RuntimeError as error:
        raise QanetError("OpenVINO cannot compile the graph", got=str(error).strip().splitlines()[-1]) from error


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
    core = openvino_core()
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
            break  # it is not what its entry says
    engine = engine_from_graph(bundle.stored_graph(graph), precision, outputs, threads, hint)
    sha256 = bundle.manifest["files"][bundle.manifest["graphs"][graph]]["sha256"]
    engine.origin = Origin(graph, sha256, version(), cpu_signature(core), _COMPUTES_IN.get(hint, ""))
    return engine


def engine_from_file(
    data: bytes, precision: str, hint: str, threads: int | None = None, graph: str | None = None
) -> OpenVinoEngine:
    """Load what `qanet build` compiled; the file does not hold what its floating point was compiled for: `hint` does.

    Raises:
        RuntimeError: OpenVINO refuses the file.
    """
    core = openvino_core()
    compiled = core.import_model(data, "CPU", _config(hint, threads))
    device, computes_in = cpu_signature(core), _COMPUTES_IN.get(hint, "")
    return OpenVinoEngine(
        compiled, precision, Origin(graph or precision, sha256_bytes(data), version(), device, computes_in)
    )


def _name(port: Any) -> str:
    """An output's name: a graph's own where OpenVINO gave the port that of a node it folded as well."""
    names = port.get_names()
    return next((name for name in _CONTRACT if name in names), port.get_any_name())


def check_type(precision: str) -> None:
    """QanetError where this CPU computes a 16-bit precision in FP32 only: it would be FP32 by another name."""
    if precision in ("fp16", "bf16") and floating_point(openvino_core(), precision) == "fp32":
        raise QanetError(
            f"{precision} cannot run here: this CPU computes FP32 only",
            expected="a CPU with FP16 or BF16, or a GPU",
            got=cpu_signature(openvino_core()),
            next_command="--precision fp32, or auto",
        )


def bundle_hint(bundle: Bundle, precision: str, outputs: tuple[str, ...] | None) -> str:
    """OpenVINO's hint for what floating point of a bundle's graph computes in on this CPU.

    For INT8 what `qanet build` chose for the float layers here, by measurement or by its option, with this version of
    OpenVINO and whichever outputs; in all other cases the nearest type that the CPU has.
    """
    core = openvino_core()
    if precision == "int8":
        known = {"f32", *float_rest_hints(core)}  # what a manifest cannot have of this CPU is not believed
        entries = entries_of_this_cpu(bundle, precision)
        exact = [e for e in entries if outputs is not None and set(e.get("outputs", ())) == set(outputs)]
        for entry in (*exact, *entries):
            if entry.get("hint") in known:
                return str(entry["hint"])
    return openvino_hint(core, precision, _has_tail(outputs))


def entries_of_this_cpu(bundle: Bundle, precision: str) -> list[dict[str, Any]]:
    """The manifest's entries of engines that this OpenVINO built on this CPU."""
    here = ("openvino", precision, version(), cpu_signature(openvino_core()))
    return [e for e in bundle.engines if (e["runtime"], e["precision"], e.get("version"), e.get("cpu")) == here]


def version() -> str:
    """OpenVINO's version without the build's number and branch."""
    import openvino

    return str(openvino.__version__.split("-")[0])


def select_outputs(model: "openvino.Model", outputs: tuple[str, ...]) -> "openvino.Model":
    """A model with only these outputs and the inputs they need."""
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


def _has_tail(outputs: tuple[str, ...] | None) -> bool:
    return outputs is None or not set(outputs) <= set(KERNEL_TAIL_OUTPUTS)


def _config(hint: str, threads: int | None) -> dict[str, Any]:
    config: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": hint}
    if threads:
        config["INFERENCE_NUM_THREADS"] = threads
    return config


_HINT = "INFERENCE_PRECISION_HINT"
_OPENVINO_NAMES = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}


@functools.cache
def openvino_core() -> Any:
    """The process's one openvino.Core, which is never released.

    OpenVINO's CPU plug-in gives the thread that makes a Core another stack for signals, and takes it away with that
    Core. When several die in another order than they came, the thread is left with a stack that is no more, and the
    next signal, such as Ctrl-C, ends the process with a segmentation fault (seen with OpenVINO 2026.4.1).
    """
    import openvino

    return openvino.Core()


def floating_point(core: Any, precision: str, has_tail: bool = False) -> str:
    """The type nearest to the one asked for that this CPU has in hardware.

    Args:
        core: openvino.Core.
        precision: of the graph: "fp32", "fp16", "bf16", or "int8", whose float layers take 16 bits where they can.
        has_tail: the graph goes on from the logits to the scores. Told FP16, OpenVINO runs that in FP16 as well,
            where 1e-6 is zero and the score of an absent part NaN; told BF16, it leaves it in FP32.
    Returns:
        "fp32", "fp16" or "bf16".
    """
    if precision == "fp32":
        return precision
    # Where 16-bit types can only be emulated, slowly, the plugin's own choice is f32.
    if core.get_property("CPU", _HINT).to_string() == "f32":
        return "fp32"
    has = {name.lower() for name in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")} & {"fp16", "bf16"}
    has -= {"fp16"} if has_tail else set()
    wanted = "bf16" if precision == "int8" else precision
    return wanted if wanted in has else min(has, default="fp32")


def openvino_hint(core: Any, precision: str, has_tail: bool = False) -> str:
    """`floating_point` as a value of OpenVINO's INFERENCE_PRECISION_HINT."""
    return _OPENVINO_NAMES[floating_point(core, precision, has_tail)]


def float_rest_hints(core: Any) -> tuple[str, ...]:
    """Hints between which the float layers of an INT8 graph have a choice: ("bf16", "f32") where this CPU has BF16.

    BF16 is the default and not always the faster: a CPU may have its instructions and lack the units that make it
    fast, which OpenVINO does not tell; `qanet build` measures it. Without BF16 there is no choice, and none is given.
    """
    return ("bf16", "f32") if openvino_hint(core, "int8") == "bf16" else ()


def cpu_signature(core: Any) -> str:
    """Names the CPU and its number types: an engine file compiled under another signature is not loaded."""
    capabilities = sorted(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
    return f"{core.get_property('CPU', 'FULL_DEVICE_NAME')} [{', '.join(capabilities)}]"
