"""Choice of the engine that runs a bundle on this machine, and its test against the bundle's known answers."""

import contextlib
import importlib.util
import os
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from qanet.bundle import NO_VNNI, OPTIONAL_PRECISIONS, PRECISIONS, Bundle, open_bundle
from qanet.cpu import has_dot_products, sums_saturate
from qanet.errors import QanetError, QanetWarning
from qanet.runtime.answers.ask import answer
from qanet.runtime.answers.verdicts import Verdict
from qanet.runtime.backends.base import Engine
from qanet.runtime.backends.tensorrt.choice import MODULES as TENSORRT_MODULES

DEVICES = ("auto", "cpu", "cuda", "onnxruntime")
COARSEST = 0.2  # relative RMS of the logits against FP32's, beyond which `auto` does not take a precision
_WHERE = {"cpu": "on this CPU", "cuda": "on this GPU", "onnxruntime": "in ONNX Runtime on this CPU"}
_GAIN = 0.02  # a narrower precision must be faster than FP32, which is exact, by this fraction


@dataclass(frozen=True)
class Choice:
    """An engine that could run: where, in which precision, of which of the bundle's graphs."""

    device: str
    precision: str
    graph: str

    def __str__(self) -> str:
        return f"{self.precision} for CPUs without VNNI" if self.graph == NO_VNNI else self.precision


class WrongAnswers(QanetError):
    """An engine whose outputs are not those of its graph.

    Args:
        building: the engine was built just now, so the error does not advise to build it.
    """

    def __init__(self, bundle: Bundle, choice: Choice, verdict: Verdict, building: bool = False):
        can_help = choice.graph == "int8" and choice.device != "cuda" and NO_VNNI not in bundle.manifest["graphs"]
        to = "" if os.access(bundle.path, os.W_OK) or bundle.is_shipped else f" --output {bundle.name}.qanet"
        mend = f"qanet build {bundle.shell_name} --precision int8{to} (for this CPU), or --precision auto"
        prove = f"qanet doctor --prove {bundle.shell_name}"
        super().__init__(
            f"{choice} of {bundle.name} answers wrongly {_WHERE[choice.device]}",
            expected=f"the known answers of its {verdict.against} graph",
            got=str(verdict),
            next_command=prove if building else mend if can_help else f"--precision auto, or {prove}",
        )
        self.choice, self.verdict = choice, verdict


def open_engine(
    bundle: Bundle, device: str, precision: str, outputs: tuple[str, ...], threads: int | None = None
) -> Engine:
    """Open or compile the engine for a device and a precision; see `qanet.runtime.parser.load`.

    Every engine is tested on the bundle's known pictures before it is returned, once per machine. A precision that was
    given by name and fails the test is an error; "auto" takes the next best, with a warning.

    Raises:
        QanetError: the device or the precision is not available, or its outputs are wrong (`WrongAnswers`).
    """
    if device not in DEVICES:
        raise QanetError("unknown device", expected=f"one of {', '.join(DEVICES)}", got=device)
    if precision not in ("auto", *PRECISIONS, *OPTIONAL_PRECISIONS):
        raise QanetError("unknown precision", expected=f"auto or one of {', '.join(PRECISIONS)}", got=precision)
    refused: list[WrongAnswers] = []
    for choice in _choices(bundle, device, precision, outputs):
        engine = open_choice(bundle, choice, outputs, threads)
        verdict = answer(bundle, engine)
        if hasattr(engine, "test_plan"):
            engine.test_plan = partial(_test_new_plan, bundle, choice, engine)
        if verdict is None and "fp32" not in bundle.manifest["graphs"]:
            _warn(f"{bundle.name} has neither known answers nor an FP32 graph: nothing proves {choice} here")
        if verdict is None or (verdict.right and not (precision == "auto" and is_too_coarse(verdict))):
            for error in refused if precision == "auto" else ():
                _warn(f"{error.choice} of {bundle.name} is not used: {_reason(error.verdict)}; {choice} is")
            engine.opened_by = (_open_again, (str(bundle.path), choice.device, choice.precision, outputs, threads))
            return engine
        refused.append(WrongAnswers(bundle, choice, verdict))
        with contextlib.suppress(AttributeError):
            engine.close()  # type: ignore[attr-defined]  # GPU memory goes back before the next one opens
    if precision != "auto":
        raise refused[0]
    raise QanetError(
        f"no precision of {bundle.name} answers rightly here",
        expected="the known answers of the bundle",
        got="; ".join(f"{e.choice} {_WHERE[e.choice.device]}: {e.verdict}" for e in refused),
        next_command=f"take a fresh copy of the bundle, or qanet doctor --prove {bundle.shell_name}",
    )


def open_choice(bundle: Bundle, choice: Choice, outputs: tuple[str, ...], threads: int | None = None) -> Engine:
    """Open an engine without testing it, for callers that test it themselves.

    Raises:
        QanetError: no such engine, a file was changed, or this CPU computes the precision in FP32 only.
    """
    if choice.device == "cuda":
        if not has_cuda():
            raise QanetError(
                "no GPU to run on", expected="an NVIDIA driver, TensorRT and PyCUDA", next_command="qanet doctor"
            )
        from qanet.runtime.backends.tensorrt.engine import engine_from_bundle

        return engine_from_bundle(bundle, choice.precision, outputs)
    from qanet.runtime.backends.openvino import check_type

    check_type(choice.precision)
    if choice.device == "onnxruntime":
        from qanet.runtime.backends import onnxruntime

        return onnxruntime.engine_from_bundle(bundle, choice.precision, outputs, threads, choice.graph)
    from qanet.runtime.backends import openvino

    return openvino.engine_from_bundle(bundle, choice.precision, outputs, threads, choice.graph)


def _open_again(path: str, device: str, precision: str, outputs: tuple[str, ...], threads: int | None) -> Engine:
    """An engine that was pickled, in the process that reads it."""
    return open_engine(open_bundle(path), device, precision, outputs, threads)


def _test_new_plan(bundle: Bundle, choice: Choice, engine: Engine, batch_sizes: tuple[int, ...]) -> None:
    """Test a plan for larger batches when it was opened for the first such batch; raises `WrongAnswers`."""
    verdict = answer(bundle, engine, batch_sizes)
    if verdict is not None and not verdict.right:
        raise WrongAnswers(bundle, choice, verdict)


def is_too_coarse(verdict: Verdict) -> bool:
    """Whether a graph, though computed rightly, is too far from FP32 for `auto`: its scales fit other pictures."""
    return verdict.from_fp32 is not None and verdict.from_fp32 > COARSEST


def _reason(verdict: Verdict) -> str:
    return f"it is too far from fp32 ({verdict})" if verdict.right else f"it answers wrongly here ({verdict})"


def _choices(bundle: Bundle, device: str, precision: str, outputs: tuple[str, ...]) -> Iterator[Choice]:
    """Engines to try, best first; those of a GPU before those of the CPU where the device is "auto"."""
    if device in ("auto", "cuda"):
        is_there = device == "cuda" or has_cuda()
        built = [e["precision"] for e in bundle.engines if e["runtime"] in TENSORRT_MODULES]
        if is_there and device == "auto" and not built:
            _warn(
                f"{bundle.name} has no engine for this GPU and runs on the CPU; "
                f"next: qanet build {bundle.name} --runtime tensorrt"
            )
        elif is_there:
            names = _on_gpu(bundle, built, outputs) if precision == "auto" else [precision]
            yield from (Choice("cuda", name, name) for name in names or ["fp32"])
            if device == "cuda" or precision != "auto":
                return
            _warn(f"no engine of {bundle.name} answers rightly on this GPU: it runs on the CPU")
    where = "onnxruntime" if device == "onnxruntime" else "cpu"
    if precision == "auto":
        yield from _on_cpu(bundle, where, outputs)
    else:
        yield from (Choice(where, precision, graph) for graph in graphs_of(bundle, precision))


def graphs_of(bundle: Bundle, precision: str) -> list[str]:
    """Graphs of a precision for this CPU, the fitting one first; the precision's own name where there is none."""
    if precision != "int8":
        return [precision]
    known = [NO_VNNI, "int8"] if sums_saturate() else ["int8", NO_VNNI]
    return [graph for graph in known if graph in bundle.manifest["graphs"]] or ["int8"]


def _on_cpu(bundle: Bundle, where: str, outputs: tuple[str, ...]) -> list[Choice]:
    """By the times that `qanet build` measured on this CPU; without them by the number types of the CPU."""
    graphs = bundle.manifest["graphs"]
    least_ms = _measured_on_cpu(bundle, where, outputs)
    if least_ms:
        best_first = sorted(least_ms, key=lambda graph: least_ms[graph] * (1 - _GAIN if graph == "fp32" else 1))
    else:
        best_first = [*(["int8"] if has_dot_products() else []), *(["fp16"] if _has_16_bits(where) else [])]
    known = [graph for graph in dict.fromkeys([*best_first, "fp32"]) if graph in graphs] or ["fp32"]
    return [Choice(where, "int8" if graph == NO_VNNI else graph, graph) for graph in known]


def _measured_on_cpu(bundle: Bundle, where: str, outputs: tuple[str, ...]) -> dict[str, float]:
    if where != "cpu" or not bundle.manifest.get("timings"):
        return {}
    from qanet.runtime.backends.openvino import cpu_signature, openvino_core, version

    return recorded_ms(bundle, "openvino", version(), cpu_signature(openvino_core()), outputs)


def _has_16_bits(where: str) -> bool:
    from qanet.runtime.backends.openvino import floating_point, openvino_core

    return where == "cpu" and floating_point(openvino_core(), "fp16") != "fp32"


def _on_gpu(bundle: Bundle, built: list[str], outputs: tuple[str, ...]) -> list[str]:
    """By the times that `qanet build` measured on this GPU; without them FP16, which every GPU here has in hardware."""
    ranks = {name: rank for rank, name in enumerate(("fp16", "fp32", "bf16", "int8", "fp8"))}
    order = sorted(dict.fromkeys(built), key=lambda name: ranks.get(name, len(ranks)))
    if not bundle.manifest.get("timings"):
        return order
    from qanet.runtime.cuda.device import open_device

    identity = open_device().identity
    for record in bundle.manifest["timings"]:
        if record.get("runtime") in TENSORRT_MODULES and record.get("device") == identity:
            least_ms = recorded_ms(bundle, record["runtime"], record["version"], identity, outputs)
            return sorted(order, key=lambda name: least_ms.get(name, float("inf")))
    return order


def recorded_ms(
    bundle: Bundle, runtime: str, version: str, device: str, outputs: tuple[str, ...] | None
) -> dict[str, float]:
    """Graph -> least milliseconds of one crop, as `qanet build` measured on this machine; empty without a record.

    A record of other outputs is used where there is none of these: they differ by the tail, which costs all alike.
    """
    here = [
        record
        for record in bundle.manifest.get("timings", [])
        if (record.get("runtime"), record.get("version"), record.get("device")) == (runtime, version, device)
    ]
    covering = [record for record in here if set(record.get("outputs", ())) >= set(outputs or ())]
    nearest = sorted(covering, key=lambda record: len(record["outputs"]))  # all outputs, of which the tail's are some
    found: dict[str, Any] = (nearest or here or [{}])[0].get("least_ms", {})
    return {graph: float(value) for graph, value in found.items() if isinstance(value, (int, float)) and value > 0}


def is_measured_here(bundle: Bundle, engine: Engine, outputs: tuple[str, ...]) -> bool:
    """Whether `auto` chose an engine by times measured on this machine."""
    origin = getattr(engine, "origin", None)
    return bool(origin and recorded_ms(bundle, engine.runtime, origin.version, origin.device, outputs))


def _warn(line: str) -> None:
    warnings.warn(line, QanetWarning, stacklevel=4)


def has_cuda() -> bool:
    """Whether TensorRT (or TensorRT-RTX) and PyCUDA are installed and the NVIDIA driver answers."""
    if not sys.platform.startswith("linux"):
        return False
    installed = [name for name in ("pycuda", *TENSORRT_MODULES.values()) if importlib.util.find_spec(name) is not None]
    if "pycuda" not in installed or len(installed) < 2:
        return False
    import ctypes

    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int(0)
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
