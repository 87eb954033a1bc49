"""What a TensorRT builder reports: its log, the layers of the finished engine, its progress.

Layers come from the engine inspector, or from the log: without a GPU no engine can be deserialised and inspected, but
at VERBOSE and with
ProfilingVerbosity.DETAILED the builder prints every layer of the finished engine with types and ONNX origins, one per
line: `Name: .., LayerType: .., Inputs: [..], Constants: [..], Outputs: [..], TacticName: .., .., Metadata: ..`.
"""

import contextlib
import json
import re
import threading
from collections.abc import Iterable, Iterator
from math import prod
from typing import Any

from qanet.export.backends.census import PRECISIONS, EngineLayer
from qanet.signals import remembered_stop

_LINE = re.compile(
    r"^Name: (?P<name>.+?), LayerType: (?P<kind>[^,]+), Inputs: \[(?P<inputs>.*?)\], Constants: \[(?P<constants>.*?)\]"
    r", Outputs: \[(?P<outputs>.*?)\], TacticName: .*?Metadata: ?(?P<metadata>.*)$"
)
_TENSOR = re.compile(r"Dimensions: \[(?P<shape>[^\]]*)\].*?Datatype: (?P<type>\w+)")
_ORIGIN = re.compile(r"\[ONNX Layer: ([^\x1e\x1f]+)\]")  # entries are separated by an ASCII record or unit separator
# Names of the types in both runtimes, in the log ("Half") and in format descriptions ("Channel major FP16 ..").
_TYPES = (
    ("bf16", re.compile(r"\b(BFloat16|BF16)\b", re.I)),
    ("fp16", re.compile(r"\b(Half|FP16)\b", re.I)),
    ("int8", re.compile(r"\bInt8\b", re.I)),
    ("fp8", re.compile(r"\b(FP8|FP8E4M3|E4M3|E4M3FN)\b", re.I)),
    ("fp32", re.compile(r"\b(Float|FP32)\b", re.I)),
)
_NARROW = {"int8", "fp8"}
_NOT_LAYERS = {"shape_call", "signal", "wait", "noop", "constant"}
_MATRIX_KINDS = re.compile(r"correlation|conv|gemm|matrixmultiply|matmul|fullyconnected|_mha", re.I)
_MATRIX_WORDS = re.compile(r"^__myl_\w*?(Corr|Conv|Fc|Gemm|Mm|Matm)(?=[A-Z_])")
_MOVE_WORDS = {"Tran", "Resh", "Repl", "Conc", "Slic", "Cast", "Move", "Copy", "Pad"}  # the compiler cuts at 4 letters


class BuilderLog:
    """The log of a builder as (severity, text); severities as in TensorRT, 0 internal error .. 4 verbose."""

    ERROR, WARNING = 1, 2

    def __init__(self) -> None:
        self.entries: list[tuple[int, str]] = []

    def texts(self, severity: int) -> list[str]:
        """Each message at least as grave as `severity`, once, in order."""
        return list(dict.fromkeys(text.strip() for level, text in self.entries if level <= severity))

    def warn(self, text: str) -> None:
        """Add a warning of this program."""
        self.entries.append((self.WARNING, text))

    def last_errors(self, count: int = 3) -> str:
        """The last errors on one line, without what a machine with no GPU logs on every occasion."""
        errors = [text for text in self.texts(self.ERROR) if "catchCudaError" not in text] or self.texts(self.ERROR)
        return "; ".join(errors[-count:]) or "no error logged"

    def logger(self, trt: Any) -> Any:
        """A logger of module `trt` that records here; the caller keeps it alive as long as the builder."""
        entries = self.entries

        class RecordingLogger(trt.ILogger):
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                entries.append((int(severity), message))

        return RecordingLogger()


def layers_from_log(texts: Iterable[str]) -> list[EngineLayer]:
    """Read the layers that the builder printed; empty where it printed none in this form."""
    layers = []
    for text in texts:
        for line in text.splitlines():
            match = _LINE.match(line)
            if not match or match["kind"].lower() in _NOT_LAYERS:
                continue
            inputs, constants, outputs = (_TENSOR.findall(match[part]) for part in ("inputs", "constants", "outputs"))
            # Scales and biases are constants too: the weights are the largest.
            weights = max(constants, key=lambda constant: _volume(constant[0]), default=None)
            layers.append(
                _layer(
                    match["name"],
                    match["kind"],
                    _ORIGIN.findall(match["metadata"]),
                    [precision_of(kind) for _, kind in inputs],
                    [precision_of(kind) for _, kind in outputs],
                    precision_of(weights[1]) if weights and _volume(weights[0]) > 1 else None,
                )
            )
    return layers


def layers_from_inspector(document: str) -> list[EngineLayer]:
    """Read EngineInspector.get_engine_information(LayerInformationFormat.JSON) of a DETAILED engine."""
    layers = []
    for entry in json.loads(document, strict=False)["Layers"]:  # not strict: the separators stand in it unescaped
        if isinstance(entry, str):  # an engine built without ProfilingVerbosity.DETAILED has names and nothing else
            return []
        kind = entry.get("LayerType", "")
        if kind.lower() in _NOT_LAYERS:
            continue
        inputs, outputs = (
            [precision_of(tensor.get("Format/Datatype", tensor.get("Datatype", ""))) for tensor in entry.get(side, [])]
            for side in ("Inputs", "Outputs")
        )
        weights = entry.get("Weights", {})
        origins = _ORIGIN.findall(entry.get("Metadata", "")) or entry["Name"].split(" + ")
        weight_type = precision_of(weights["Type"]) if weights.get("Count", 0) else None
        layers.append(_layer(entry["Name"], kind, origins, inputs, outputs, weight_type))
    return layers


def precision_of(text: str) -> str:
    """One of census.PRECISIONS from either runtime's data type or format description."""
    return next((precision for precision, words in _TYPES if words.search(text)), "other")


def _layer(
    name: str, kind: str, nodes: list[str], inputs: list[str], outputs: list[str], weights: str | None
) -> EngineLayer:
    computes = bool(_MATRIX_KINDS.search(kind) or _MATRIX_WORDS.match(name))
    widest = _widest(inputs + outputs)
    # A product runs in the type of its weights when data comes in that type as well (a residual may come wider, the
    # sum may go out wider); otherwise something was converted first, and the product ran in the wider type.
    product = weights if weights and weights in inputs else _widest([*inputs, weights or "other"])
    return EngineLayer(
        name=name,
        nodes=tuple(dict.fromkeys(nodes)),
        precision=product if computes else widest,
        computes=computes,
        moves=not computes and bool(inputs) and _only_moves(name, kind),
        quantizes=not computes and not _NARROW.isdisjoint(outputs) and widest not in _NARROW,
        product=product,
    )


def _only_moves(name: str, kind: str) -> bool:
    if kind.lower() == "reformat":
        return True
    words = re.findall(r"[A-Z][a-z]+", name.removeprefix("__myl_").partition("_")[0]) if "__myl_" in name else []
    return bool(words) and set(words) <= _MOVE_WORDS


def _widest(types: list[str]) -> str:
    """The widest of the types that are one of the four; "other" when none is."""
    return max((t for t in types if t != "other"), key=PRECISIONS.index, default="other")


def _volume(shape: str) -> int:
    return prod(abs(int(axis)) for axis in shape.split(",") if axis.strip())


@contextlib.contextmanager
def watched(trt: Any, config: Any, bar: Any) -> Iterator[None]:
    """Move a tqdm bar with the builder's steps while the block runs; KeyboardInterrupt at its end after Ctrl-C.

    A signal handler that raises would raise into the library's callbacks, which must not raise; this one only makes the
    builder's monitor ask for the end, which the builder reaches at its next step.

    Args:
        trt: the library's module.
        config: the IBuilderConfig that the block builds with.
        bar: tqdm with a total of 0, to which each phase adds its steps when it starts; None shows nothing.
    """
    with remembered_stop(patient=True) as stopped:
        monitor = _monitor(trt, bar, stopped)
        config.progress_monitor = monitor
        try:
            yield
        finally:
            config.progress_monitor = None
    if stopped.is_set():
        raise KeyboardInterrupt


def _monitor(trt: Any, bar: Any, stopped: threading.Event) -> Any:
    class ProgressMonitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, list[int]] = {}  # phase -> done, of how many

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._steps[phase_name] = [0, num_steps]
            if bar is not None:
                bar.total += num_steps
                bar.set_description(phase_name)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._advance(phase_name, step + 1)
            return not stopped.is_set()

        def phase_finish(self, phase_name: str) -> None:
            if phase_name in self._steps:
                self._advance(phase_name, self._steps[phase_name][1])
                del self._steps[phase_name]

        def _advance(self, phase_name: str, to: int) -> None:
            state = self._steps.get(phase_name)  # a phase of a failed build may step after its end
            if state is not None and to > state[0]:
                if bar is not None:
                    bar.update(min(to, state[1]) - state[0])
                state[0] = min(to, state[1])

    return ProgressMonitor()
