"""Known-answer tests of engines, once per engine and machine."""

import contextlib
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from qanet.bundle import NO_VNNI, Bundle
from qanet.errors import QanetError, QanetWarning
from qanet.files import write_bytes
from qanet.runtime.answers.known import (
    KnownAnswers,
    Outputs,
    current_graphs,
    pictures,
    reduced,
    source_of,
    stored_answers,
)
from qanet.runtime.answers.verdicts import (
    COARSER,
    TOLERANCES,
    Verdict,
    cache_folder,
    compare,
    label_agreement,
    read_own,
    recall,
    relative_rms,
    remember,
    verdict_key,
)
from qanet.runtime.backends.base import Engine, Origin

_NARROW = ("int8", NO_VNNI, "fp8")


def answer(bundle: Bundle, engine: Engine, batch_sizes: tuple[int, ...] | None = None) -> Verdict | None:
    """The verdict on an engine of a bundle: from this machine's cache, else tested now.

    Args:
        batch_sizes: pictures at once; None: what the engine has open, one at a time for one that takes any number.
    Returns:
        None where the answers are unknown: the bundle has neither answers nor an FP32 graph, or the engine has no
        origin.
    Raises:
        QanetError: the answers were changed, or the engine does not run.
    """
    origin: Origin | None = getattr(engine, "origin", None)
    current, has_graph = current_graphs(bundle), "fp32" in bundle.manifest["graphs"]
    if origin is None or not (current or has_graph):
        return None
    record = bundle.manifest["answers"] if "fp32" in current or not has_graph else {}
    facts: list[Any] = [source_of(bundle, "fp32") if has_graph else "", record]
    if record:
        bundle.read(record["file"])  # its hash is checked even where the verdict is known
        facts.append(bundle.manifest["files"][record["file"]]["sha256"])
    sizes = batch_sizes if batch_sizes is not None else tuple(getattr(engine, "batch_sizes", (1,)))
    key = verdict_key(engine.runtime, asdict(origin), sorted(engine.outputs), sizes, facts, TOLERANCES)
    verdict = recall(key)
    if verdict is None:
        known = stored_answers(bundle) or made_answers(bundle)
        verdict = ask(engine, origin, known, record.get("tolerances", {}), sizes)
        remember(key, verdict)
    return verdict


def ask(
    engine: Engine,
    origin: Origin,
    known: KnownAnswers,
    tolerances: Mapping[str, Mapping[str, float]] | None = None,
    batch_sizes: Sequence[int] = (1,),
) -> Verdict:
    """Run the known pictures through an engine and compare its outputs with the known ones.

    Args:
        tolerances: precision -> limits, where they are tighter than those of TOLERANCES.
        batch_sizes: pictures at once.
    Raises:
        QanetError: the engine does not run, or has outputs of another shape.
    """
    against = origin.graph if origin.graph in known.outputs else "fp32"
    kind = _kind(origin)
    if against not in known.outputs:
        raise QanetError(f"the bundle has no known answers of {origin.graph}", got=", ".join(known.outputs))
    given = (tolerances or {}).get(kind, {})
    limits = {name: min(value, given.get(name, value)) for name, value in TOLERANCES[kind].items()}  # never looser
    if kind in _NARROW and against == "fp32":
        limits = {name: COARSER * value for name, value in limits.items()}
    names = list(engine.outputs)
    unknown = [name for name in names if name not in known.outputs[against]]
    if unknown:
        raise QanetError(
            f"the engine's {unknown[0]} has no known answer",
            expected=", ".join(known.outputs[against]),
            got=", ".join(names),
            next_command="take a fresh copy of the bundle, or export it again",
        )
    got, rows, least_ms = _run(engine, known, names, batch_sizes)
    reference, fp32 = (
        {name: known.outputs[graph][name][rows] for name in names if name in known.outputs.get(graph, {})}
        for graph in (against, "fp32")
    )
    differences = compare(reference, got, limits)
    return Verdict(
        right=not any(d.departs for d in differences),
        against=against,
        differences={d.name: (_number(d.value), d.limit) for d in differences},
        agreement=label_agreement(fp32, got),
        from_fp32=_number(relative_rms(fp32["logits"], got["logits"])) if "logits" in fp32 else None,
        least_ms=round(least_ms, 3),
    )


def _run(
    engine: Engine, known: KnownAnswers, names: Sequence[str], batch_sizes: Sequence[int]
) -> tuple[dict[str, np.ndarray], np.ndarray, float]:
    """Every picture in batches of each size; outputs, the picture of each row, and milliseconds."""
    count = len(known.crops)
    found: list[dict[str, np.ndarray]] = []
    rows: list[int] = []
    least_ms = float("inf")
    for size in batch_sizes:
        for start in range(0, count, size):
            chosen = [(start + k) % count for k in range(size)]
            begin = time.perf_counter()
            try:
                outputs: Outputs = engine.run(known.crops[chosen], known.box_scores[chosen])
            except RuntimeError as error:  # of OpenVINO and ONNX Runtime, for example of a file for another crop size
                got = str(error).strip().splitlines() or ["no message"]
                raise QanetError(
                    "the engine does not run on pictures of the bundle's size",
                    expected=known.crops.shape[1:],
                    got=got[-1],
                    next_command="qanet build makes it again",
                ) from error
            least_ms = min(least_ms, (time.perf_counter() - begin) * 1e3 / size)
            found.append(reduced({name: outputs[name] for name in names}))
            rows += chosen
    return {name: np.concatenate([part[name] for part in found]) for name in names}, np.array(rows), least_ms


def _kind(origin: Origin) -> str:
    """The entry of TOLERANCES that holds for an engine."""
    if origin.graph == "fp16" and origin.computes_in == "bf16":
        return "bf16"
    return "int8" if origin.graph == NO_VNNI else origin.graph


def _number(value: float) -> float:
    """A difference for JSON, which has no NaN: an engine that answers NaN is wrong by a very large number."""
    return float(value) if np.isfinite(value) else 1e30


def made_answers(bundle: Bundle) -> KnownAnswers:
    """Answers of a bundle of an older version, which has none: from its FP32 graph on this CPU, with a warning.

    They are kept in the user's cache; `qanet build` writes them into the bundle.
    """
    height, width = bundle.input_hw
    path = cache_folder() / f"answers-{source_of(bundle, 'fp32')}-{height}x{width}.npz"
    with contextlib.suppress(QanetError, OSError):
        data = read_own(path, 64 << 20)
        kept = None if data is None else KnownAnswers.from_bytes(data)
        if kept is not None and "fp32" in kept.outputs and kept.crops.shape[1:] == (height, width, 3):
            return kept
    warnings.warn(
        f"{bundle.name} brings no known answers: they are made from its FP32 graph on this CPU; "
        "`qanet build` keeps them in the bundle",
        QanetWarning,
        stacklevel=2,
    )
    crops, scores = pictures(bundle)
    outputs = run_in_fp32(bundle.stored_graph("fp32"), crops, scores)
    made = KnownAnswers(crops, scores, {"fp32": reduced(outputs)})
    with contextlib.suppress(QanetError, OSError):
        write_bytes(path, made.to_bytes())
    return made


def run_in_fp32(graph: bytes, crops: np.ndarray, box_scores: np.ndarray) -> Outputs:
    """All outputs of a graph in FP32 by OpenVINO, which every installation has."""
    from qanet.runtime.backends.openvino import engine_from_graph

    engine = engine_from_graph(graph, "fp32")
    return {name: np.array(values) for name, values in engine.run(crops, box_scores).items()}


def answers_missing(bundle: Bundle, graphs: Sequence[str]) -> list[str]:
    """Graphs whose answers the bundle does not hold, or holds of older weights or scales."""
    current = current_graphs(bundle)
    return [graph for graph in graphs if graph not in current]
