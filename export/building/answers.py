"""Known answers: engines are asked the bundle's known pictures, when they are built and by `qanet doctor --prove`.

An engine that answers wrongly is not kept. One that is for another machine answers there, when it is first loaded.
"""

import copy
import importlib.util
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from qanet.bundle import NO_VNNI, OPTIONAL_PRECISIONS, PRECISIONS, Bundle, create, open_bundle
from qanet.calib.bundle import SCALES, quantised_graph
from qanet.calib.latency import samples_in_turns
from qanet.calib.quantize import NARROW_TYPES
from qanet.errors import QanetError
from qanet.export.backends.census import BuiltEngine, Report, engine_entry
from qanet.export.graphs.typed import write_typed_graph
from qanet.labels import PERSON_BOX1
from qanet.runtime.answers.ask import answer, answers_missing, ask, made_answers, run_in_fp32
from qanet.runtime.answers.known import pictures, renew_answers, stored_answers
from qanet.runtime.answers.verdicts import TOLERANCES, Verdict, asked_anew
from qanet.runtime.backends.base import KERNEL_TAIL_OUTPUTS, Engine, graph_name
from qanet.runtime.backends.onnxruntime import exact_outputs
from qanet.runtime.backends.openvino import HINT
from qanet.runtime.backends.select import Choice, WrongAnswers, has_cuda, is_measured_here, open_choice, open_engine
from qanet.runtime.backends.tensorrt.choice import MODULES as TENSORRT_MODULES
from qanet.runtime.detectors.open import OUTPUTS as DETECTOR_OUTPUTS
from qanet.scratch import scratch_folder

Row = dict[str, object]


def complete_answers(bundle: Bundle, graphs: Sequence[str], report: Report) -> None:
    """Add known answers that a bundle lacks, for FP32 and for INT8 graphs that will be built; not saved.

    Without ONNX Runtime OpenVINO answers for FP32, and INT8 is compared with FP32, more coarsely.
    """
    has_reference = importlib.util.find_spec("onnxruntime") is not None
    wanted = answers_missing(bundle, ["fp32", *(g for g in graphs if g in ("int8", NO_VNNI) and has_reference)])
    if "fp32" in wanted:
        by = "ONNX Runtime" if has_reference else "OpenVINO on this CPU"
        report(f"{bundle.name} has no known answers; they are made from its FP32 graph by {by}")
    data = {}
    for graph in wanted:
        scaled = graph != "fp32" and SCALES in bundle.manifest["files"]
        data[graph] = quantised_graph(bundle, graph) if scaled else bundle.graph(graph)
    if data:
        renew_answers(bundle, data, exact_outputs if has_reference else run_in_fp32, TOLERANCES)


def ask_built(bundle: Bundle, built: BuiltEngine, precision: str, graph: str) -> Verdict | None:
    """The verdict on an engine that is not in the bundle yet; None where this machine cannot run it.

    Args:
        bundle: with known answers.
        graph: key of the graph that it was built from.
    Raises:
        WrongAnswers: it runs, and answers wrongly.
        QanetError: it does not run.
    """
    if built.runtime == "openvino":
        choice, verdict = Choice("cpu", precision, graph), _ask_openvino(bundle, built, precision, graph)
    else:
        if not runs_here(built.targets, built.stripped):
            return None
        choice, verdict = Choice("cuda", precision, graph), _ask_tensorrt(bundle, built, precision)
    if verdict is not None and not verdict.right:
        raise WrongAnswers(bundle, choice, verdict, building=True)
    return verdict


def runs_here(targets: Sequence[str], stripped: bool) -> bool:
    """Whether an engine for these GPUs runs on the GPU of this machine, and has its weights."""
    if stripped or not has_cuda():
        return False
    from qanet.runtime.cuda.device import open_device

    return open_device().target in targets


def _ask_openvino(bundle: Bundle, built: BuiltEngine, precision: str, graph: str) -> Verdict | None:
    from qanet.runtime.backends.openvino import engine_from_file

    try:
        engine = engine_from_file(built.data, precision, built.options[HINT], graph=graph)
    except RuntimeError as error:
        raise QanetError("OpenVINO refuses the engine it just built", got=str(error)[-300:]) from error
    return answer(bundle, engine)


def _ask_tensorrt(bundle: Bundle, built: BuiltEngine, precision: str) -> Verdict | None:
    from qanet.runtime.backends.tensorrt.engine import engine_from_bundle

    with scratch_folder() as folder:
        scratch = alone(folder, bundle, built, precision)
        with engine_from_bundle(scratch, precision, allow_host_code=True) as engine:  # this machine made it just now
            return answer(bundle, engine)


def alone(folder: Path, bundle: Bundle, built: BuiltEngine, precision: str) -> Bundle:
    """A bundle of this engine alone, without a graph to fall back to."""
    facts: dict[str, Any] = {"labels": bundle.labels.name, "input_hw": list(bundle.input_hw)}
    facts |= {"qam_weights": list(bundle.qam_weights), "pixel_score_threshold": bundle.threshold}
    scratch = create(folder / "alone.qanet", **facts)
    scratch.add_engine("engines/alone", built.data, engine_entry(built, precision, None))
    scratch.save()
    return scratch


def prove(name: str) -> dict[str, Any]:
    """Ask every engine of a bundle that could run on this machine, without the cache of earlier verdicts.

    Typed graphs that the bundle lacks are made for it in memory; nothing is written into the bundle.

    Returns:
        engines: a row for each; auto: which engine `auto` takes and why; auto_is_right: whether it answers rightly.
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
        rows[-1] |= _outcome(engine, origin.computes_in, verdict)
        engines[len(rows) - 1] = engine
    crops, scores = pictures(bundle)
    calls: dict[str, Callable[[], Any]] = {str(k): partial(e.run, crops[:1], scores[:1]) for k, e in engines.items()}
    for number, values in samples_in_turns(calls).items() if calls else ():
        rows[int(number)]["ms"] = round(min(values), 2)
    sentence, is_right = _auto(given, outputs)
    return {"bundle": name, "engines": rows, "auto": sentence, "auto_is_right": is_right}


def _with_typed_graphs(bundle: Bundle) -> Bundle:
    """A copy in memory with every graph that can be made from the bundle, and their answers."""
    made = Bundle(bundle.path, copy.deepcopy(bundle.manifest))
    calibrated = SCALES in bundle.manifest["files"]
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


def _outcome(engine: Engine, computes_in: str, verdict: Verdict) -> Row:
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
