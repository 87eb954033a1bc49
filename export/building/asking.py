"""An engine that was just built answers the bundle's known pictures, where it can run on this machine.

What answers wrongly is not kept. What is for another machine answers there, when it is first loaded.
"""

import importlib.util
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from qanet.bundle import NO_VNNI, Bundle, create
from qanet.calib.bundle import quantised_graph
from qanet.errors import QanetError
from qanet.export.building.entry import engine_entry
from qanet.export.engines.built import BuiltEngine
from qanet.runtime.answers.ask import answer, answers_missing, run_in_fp32
from qanet.runtime.answers.judge import TOLERANCES
from qanet.runtime.answers.known import renew_answers
from qanet.runtime.answers.reference import exact_outputs
from qanet.runtime.answers.verdicts import Verdict
from qanet.runtime.engines.select import Choice, WrongAnswers, has_cuda


def complete_answers(bundle: Bundle, graphs: Sequence[str], say: Callable[[str], None]) -> None:
    """Put the known answers into a bundle that lacks them, unsaved: of FP32, and of INT8 graphs that will be built.

    Without ONNX Runtime OpenVINO answers for FP32, and INT8 is compared with FP32, more coarsely.
    """
    has_reference = importlib.util.find_spec("onnxruntime") is not None
    wanted = answers_missing(bundle, ["fp32", *(g for g in graphs if g in ("int8", NO_VNNI) and has_reference)])
    if "fp32" in wanted:
        by = "ONNX Runtime" if has_reference else "OpenVINO on this CPU"
        say(f"{bundle.name} brought no known answers; they are made from its FP32 graph by {by}")
    data = {}
    for graph in wanted:
        scaled = graph != "fp32" and "scales.json" in bundle.manifest["files"]
        data[graph] = quantised_graph(bundle, graph) if scaled else bundle.graph(graph)
    if data:
        renew_answers(bundle, data, exact_outputs if has_reference else run_in_fp32, TOLERANCES)


def ask_built(bundle: Bundle, built: BuiltEngine, precision: str, graph: str) -> Verdict | None:
    """The verdict on an engine that is not in the bundle yet; None where it cannot run here.

    Args:
        bundle: with known answers.
        graph: the key of the graph that it was built from.
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
    """Whether an engine for these GPUs is for that of this machine, and has its weights."""
    if stripped or not has_cuda():
        return False
    from qanet.runtime.cuda.context import open_gpu

    return open_gpu().target in targets


def _ask_openvino(bundle: Bundle, built: BuiltEngine, precision: str, graph: str) -> Verdict | None:
    from qanet.runtime.engines.openvino import engine_from_file

    try:
        engine = engine_from_file(built.data, precision, built.options["INFERENCE_PRECISION_HINT"], graph=graph)
    except RuntimeError as error:
        raise QanetError("OpenVINO refuses the engine it just built", got=str(error)[-300:]) from error
    return answer(bundle, engine)


def _ask_tensorrt(bundle: Bundle, built: BuiltEngine, precision: str) -> Verdict | None:
    from qanet.runtime.engines.tensorrt import engine_from_bundle

    with tempfile.TemporaryDirectory() as folder:
        scratch = alone(Path(folder), bundle, built, precision)
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
