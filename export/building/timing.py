"""Measures on this CPU or GPU: the faster type for the float layers of an INT8 engine, and a bundle's engines in turns.

`auto` of the runtime goes by the second measurement, which is recorded in the manifest. The first is needed because
BF16 in hardware is no promise of speed: where a CPU has the instructions and not the matrix units behind them, FP32 can
be faster, and OpenVINO does not tell these CPUs apart. So the graph is compiled with both types and timed in turns.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from qanet.bundle import NO_VNNI, Bundle
from qanet.calib.latency import Samples, samples_in_turns
from qanet.errors import QanetError
from qanet.export.building.verify import drawn_crops
from qanet.export.graphs.source import load_graph
from qanet.runtime.answers.ask import answer
from qanet.runtime.answers.known import pictures
from qanet.runtime.backends.base import Engine
from qanet.runtime.backends.openvino import compile_graph, entries_of_this_cpu, float_rest_hints, openvino_core
from qanet.runtime.backends.select import Choice, open_choice

_MARGIN = 0.02  # BF16 must be faster by this share: FP32 is the more exact, and two builds should not differ by noise
_GAIN = 0.02  # a narrower precision must be faster than FP32 by this share before `auto` takes it

TimeInTurns = Callable[[bytes, Sequence[str] | None, tuple[int, int], Sequence[str]], Samples]


@dataclass(frozen=True)
class FloatRest:
    """The chosen type of the float layers, and the reason.

    Attributes:
        hint: OpenVINO's INFERENCE_PRECISION_HINT, "bf16" or "f32".
        by: "measurement" or "option".
        least_ms: hint -> least latency of one crop; empty where nothing was measured.
        rounds: number of measured rounds.
    """

    hint: str
    by: str
    least_ms: dict[str, float]
    rounds: int = 0

    def to_json(self) -> dict[str, Any]:
        """For the engine's entry in the manifest."""
        document: dict[str, Any] = {"chosen": self.hint, "by": self.by}
        if self.least_ms:
            rounded = {hint: round(value, 3) for hint, value in self.least_ms.items()}
            document |= {"least_ms": rounded, "rounds": self.rounds}
        return document

    def __str__(self) -> str:
        times = ", ".join(f"{hint} {value:.2f} ms" for hint, value in self.least_ms.items())
        return f"layers that are not INT8 compute in {self.hint} ({times}: the least of {self.rounds} rounds in turns)"


def check_float_rest(asked: str) -> None:
    """QanetError where this CPU lacks the type of --float-rest."""
    if asked == "bf16" and not float_rest_hints(openvino_core()):
        raise QanetError("this CPU has no BF16", expected="auto or f32", got=f"--float-rest {asked}")


def choose_float_rest(
    graph: bytes,
    outputs: Sequence[str] | None,
    input_hw: tuple[int, int],
    asked: str = "auto",
    time_in_turns: TimeInTurns | None = None,
) -> FloatRest | None:
    """The type of the float layers of one INT8 graph.

    Args:
        graph: ONNX file contents with Q/DQ.
        outputs: those the engine keeps, None for all.
        input_hw: crop size (H, W) pixels.
        asked: "bf16", "f32", or "auto" to measure.
        time_in_turns: measures; None: `time_graph`.
    Returns:
        None where there is nothing to choose: this CPU has no BF16, and `asked` is "auto".
    Raises:
        QanetError: this CPU lacks the type asked for, or OpenVINO cannot compile the graph.
    """
    check_float_rest(asked)
    if asked != "auto":
        return FloatRest(asked, "option", {})
    hints = float_rest_hints(openvino_core())
    if not hints:
        return None
    samples = (time_in_turns or time_graph)(graph, outputs, input_hw, hints)
    least_ms = {hint: min(values) for hint, values in samples.items()}  # other work on the machine can only add
    is_faster = least_ms["bf16"] < (1 - _MARGIN) * least_ms["f32"]
    return FloatRest("bf16" if is_faster else "f32", "measurement", least_ms, len(samples["f32"]))


def time_graph(graph: bytes, outputs: Sequence[str] | None, input_hw: tuple[int, int], hints: Sequence[str]) -> Samples:
    """Times (ms) of one crop with each of the hints, the graph compiled as the runtime compiles it."""
    model = load_graph(graph, outputs)
    feed = {"crops": drawn_crops(1, input_hw), "box_scores": np.ones(1, np.float32)}
    feed = {value.name: feed[value.name] for value in model.graph.input}
    calls: dict[str, Callable[[], Any]] = {}
    for hint in hints:
        compiled = compile_graph(model.SerializeToString(), hint, name="the INT8 graph")
        calls[hint] = partial(compiled.create_infer_request().infer, feed, share_inputs=True)
    return samples_in_turns(calls)


def time_here(bundle: Bundle, device: str, outputs: Sequence[str], precisions: Sequence[str]) -> dict[str, Any] | None:
    """Time the engines of one device in turns and record it in the manifest, not saved.

    Args:
        device: "cpu" for OpenVINO, "cuda" for TensorRT on this GPU.
        outputs: that the engines keep.
        precisions: of engines that were built here; on a CPU FP32 is timed too, and compiled now if need be.
    Returns:
        The record; None where fewer than two engines can run.
    """
    engines: dict[str, Engine] = {}
    for choice in _choices(bundle, device, precisions):
        try:
            engine = open_choice(bundle, choice, tuple(outputs))
            verdict = answer(bundle, engine)
        except QanetError:
            continue  # an engine that does not open here, or has no such outputs, is no candidate
        if verdict is None or verdict.right:
            engines[choice.graph] = engine
    origins = {graph: getattr(engine, "origin", None) for graph, engine in engines.items()}
    if len(engines) < 2 or None in origins.values():
        return None
    crops, scores = pictures(bundle)
    calls: dict[str, Callable[[], Any]] = {g: partial(e.run, crops[:1], scores[:1]) for g, e in engines.items()}
    samples = samples_in_turns(calls)
    first = next(iter(engines))
    origin = origins[first]
    assert origin is not None
    record = {
        "runtime": engines[first].runtime,
        "version": origin.version,
        "device": origin.device,
        "outputs": sorted(outputs),
        "crops": 1,
        "least_ms": {graph: round(min(values), 3) for graph, values in samples.items()},
        "rounds": len(samples[first]),
    }
    same = ("runtime", "device", "outputs")
    kept = [r for r in bundle.manifest["timings"] if any(r.get(key) != record[key] for key in same)]
    bundle.manifest["timings"] = [*kept, record]
    return record


def _choices(bundle: Bundle, device: str, precisions: Sequence[str]) -> list[Choice]:
    wanted = dict.fromkeys((*(["fp32"] if device == "cpu" else []), *precisions))
    found = []
    for precision in wanted:
        graph = precision
        if precision == "int8" and device == "cpu":  # the bundle may hold another CPU's engine too
            built = [e.get("graph", "int8") for e in entries_of_this_cpu(bundle, "int8")]
            graph = NO_VNNI if built == [NO_VNNI] else "int8"
        found.append(Choice(device, precision, graph))
    return found


def describe(record: dict[str, Any]) -> str:
    """One line: the times, and what `auto` takes."""
    least_ms: dict[str, float] = record["least_ms"]
    times = ", ".join(f"{graph} {value:.2f} ms" for graph, value in least_ms.items())
    best = min(least_ms, key=lambda graph: least_ms[graph] * (1 - _GAIN if graph == "fp32" else 1))
    line = f"one crop in turns: {times} (the least of {record['rounds']} rounds); auto takes {best}"
    slower = [g for g, ms in least_ms.items() if g.startswith("int8") and ms >= least_ms.get("fp32", float("inf"))]
    return f"{line}; {slower[0]} is no faster than fp32 here" if slower else line
