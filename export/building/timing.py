"""How fast the engines of a bundle are here, against each other: what `auto` goes by."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from qanet.bundle import NO_VNNI, Bundle
from qanet.errors import QanetError
from qanet.export.building.float_rest import samples_in_turns
from qanet.runtime.answers.ask import answer
from qanet.runtime.answers.known import pictures
from qanet.runtime.backends.base import Engine
from qanet.runtime.backends.openvino import entries_of_this_cpu
from qanet.runtime.backends.select import Choice, open_choice

_GAIN = 0.02


def time_here(bundle: Bundle, device: str, outputs: Sequence[str], precisions: Sequence[str]) -> dict[str, Any] | None:
    """Time the engines of one device in turns and note it in the manifest, unsaved.

    Args:
        device: "cpu" for OpenVINO, "cuda" for TensorRT on this GPU.
        outputs: that the engines keep.
        precisions: of engines that were built here; on a CPU FP32 is timed beside them, compiled now if need be.
    Returns:
        The record; None where fewer than two engines can run.
    """
    engines: dict[str, Engine] = {}
    for choice in _choices(bundle, device, precisions):
        try:
            engine = open_choice(bundle, choice, tuple(outputs))
            verdict = answer(bundle, engine)
        except QanetError:
            continue  # what does not open here, or has no such outputs, is no candidate
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
        if precision == "int8" and device == "cpu":  # of this CPU's: another's may lie beside it
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
