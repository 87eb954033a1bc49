"""`qanet doctor --prove`: each engine that could run here, what it answered, how fast it is, and what `auto` takes."""

import copy
import importlib.util
from collections.abc import Callable
from functools import partial
from typing import Any

from qanet.bundle import NO_VNNI, OPTIONAL_PRECISIONS, PRECISIONS, Bundle, open_bundle
from qanet.calib.quantize import NARROW_TYPES
from qanet.errors import QanetError
from qanet.export.building.asking import complete_answers
from qanet.export.building.float_rest import samples_in_turns
from qanet.export.graphs.typed_set import write_typed_graph
from qanet.labels import PERSON_BOX1
from qanet.runtime.answers.ask import ask, made_answers
from qanet.runtime.answers.known import pictures, stored_answers
from qanet.runtime.answers.verdicts import Verdict, asked_anew
from qanet.runtime.backends.base import KERNEL_TAIL_OUTPUTS, Engine, graph_name
from qanet.runtime.backends.select import Choice, has_cuda, is_measured_here, open_choice, open_engine
from qanet.runtime.backends.tensorrt.choice import MODULES as TENSORRT_MODULES
from qanet.runtime.detectors.open import OUTPUTS as DETECTOR_OUTPUTS

Row = dict[str, object]


def prove(name: str) -> dict[str, Any]:
    """Ask every engine of a bundle that could run on this machine, whatever the cache says.

    Typed graphs that the bundle lacks are made for it in memory; nothing is written into the bundle.

    Returns:
        engines: a row for each; auto: a sentence on what `auto` takes and why; auto_is_right.
    Raises:
        QanetError: no such bundle.
    """
    with asked_anew():
        return _prove(name)


def _prove(name: str) -> dict[str, Any]:
    given = open_bundle(name)
    bundle = _with_typed_graphs(given)
    outputs = DETECTOR_OUTPUTS if bundle.labels == PERSON_BOX1 else KERNEL_TAIL_OUTPUTS
    known = stored_answers(bundle) or made_answers(bundle)
    limits = bundle.manifest["answers"].get("tolerances", {})
    rows: list[Row] = []
    engines: dict[int, Engine] = {}
    for choice in _choices(bundle):
        runtime = {"cpu": "openvino", "cuda": "tensorrt"}.get(choice.device, choice.device)
        row: Row = {"runtime": runtime, "precision": str(choice), "computes_in": ""}
        rows.append(row | dict.fromkeys(("difference", "limit", "agreement", "ms"), "") | {"answer": ""})
        try:
            engine = open_choice(bundle, choice, outputs)
            origin = getattr(engine, "origin", None)
            assert origin is not None
            verdict = ask(engine, origin, known, limits, getattr(engine, "batch_sizes", (1,)))
        except QanetError as error:
            rows[-1]["answer"] = f"not run: {error.fact}"
            continue
        rows[-1] |= _told(engine, origin.computes_in, verdict)
        engines[len(rows) - 1] = engine
    crops, scores = pictures(bundle)
    calls: dict[str, Callable[[], Any]] = {str(k): partial(e.run, crops[:1], scores[:1]) for k, e in engines.items()}
    for number, values in samples_in_turns(calls).items() if calls else ():
        rows[int(number)]["ms"] = round(min(values), 2)
    sentence, is_right = _auto(given, outputs)
    return {"bundle": name, "engines": rows, "auto": sentence, "auto_is_right": is_right}


def _with_typed_graphs(bundle: Bundle) -> Bundle:
    """A copy in memory with every graph that can be made of the bundle, and their answers."""
    made = Bundle(bundle.path, copy.deepcopy(bundle.manifest))
    calibrated = "scales.json" in bundle.manifest["files"]
    for graph in ("fp16", *(("int8", NO_VNNI) if calibrated or "int8" in bundle.manifest["graphs"] else ())):
        write_typed_graph(made, graph)
    complete_answers(made, ["int8", NO_VNNI] if "int8" in made.manifest["graphs"] else [], lambda line: None)
    return made


def _choices(bundle: Bundle) -> list[Choice]:
    graphs = bundle.manifest["graphs"]
    known = [g for g in (*PRECISIONS, NO_VNNI, *OPTIONAL_PRECISIONS) if g in graphs and g != "fp8"]
    found = [Choice("cpu", "int8" if g == NO_VNNI else g, g) for g in known]
    if importlib.util.find_spec("onnxruntime") is not None:
        plain = [g for g in known if g == "fp32" or g in NARROW_TYPES]
        found += [Choice("onnxruntime", "int8" if g == NO_VNNI else g, g) for g in plain]
    if has_cuda():
        built = dict.fromkeys(e["precision"] for e in bundle.engines if e["runtime"] in TENSORRT_MODULES)
        found += [Choice("cuda", precision, precision) for precision in built]
    return found


def _told(engine: Engine, computes_in: str, verdict: Verdict) -> Row:
    name, value, limit = verdict.worst
    return {
        "runtime": engine.runtime,
        "computes_in": computes_in,
        "difference": f"{name} {value:.2g}",
        "limit": limit,
        "agreement": "" if verdict.agreement is None else f"{verdict.agreement:.1%}",
        "answer": "right" if verdict.right else "WRONG: not used",
    }


def _auto(bundle: Bundle, outputs: tuple[str, ...]) -> tuple[str, bool]:
    try:
        engine = open_engine(bundle, "auto", "auto", outputs)
    except QanetError as error:
        return f"auto takes nothing: {error.line()}", False
    graph = graph_name(engine)
    if is_measured_here(bundle, engine, outputs):
        why = "the fastest right one that `qanet build` measured here"
    elif len(bundle.manifest["graphs"]) == 1:
        why = f"the bundle has no other graph; next: qanet build {bundle.name if bundle.is_shipped else bundle.path}"
    else:
        why = "by what this machine has; `qanet build` would measure"
    return f"auto takes {graph} on {engine.runtime}: {why}", True
