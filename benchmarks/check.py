"""Correct before fast: an engine whose outputs fail this check is not timed."""

import importlib.util
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.benchmarks.agreement import CropParsing, label_agreement, parse_crops
from qanet.bundle import Bundle
from qanet.errors import QanetError
from qanet.runtime.engines.base import KERNEL_TAIL_OUTPUTS, Engine
from qanet.runtime.engines.select import open_engine

FLOOR = 0.9  # least share of label pixels that agree with FP32
ORACLE_CROPS = 2


@dataclass(frozen=True)
class Check:
    """Whether an engine may be timed, and why not."""

    passed: bool
    against: str = ""  # what it was compared with
    crops: int = 0
    label_agreement: float | None = None
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        share = None if self.label_agreement is None else round(self.label_agreement, 6)
        return {
            "passed": self.passed, "against": self.against, "crops": self.crops, "label_agreement": share,
            "floor": FLOOR, "reason": self.reason,
        }  # fmt: skip


@dataclass
class Checked:
    """Engines that opened, what they say about the crops, and the verdicts; by precision."""

    engines: dict[str, Engine] = field(default_factory=dict)
    parsings: dict[str, CropParsing] = field(default_factory=dict)
    checks: dict[str, Check] = field(default_factory=dict)
    reference: CropParsing | None = None
    reference_name: str = ""


def judge(parsing: CropParsing, reference: CropParsing | None, against: str) -> Check:
    """Finite outputs, and labels that agree with the reference's on FLOOR or more of the pixels."""
    count = len(parsing.labels)
    if not parsing.finite:
        return Check(False, against, count, reason="its outputs are not finite")
    if reference is None:
        return Check(True, "nothing: no reference could run", count)
    share = label_agreement(reference.labels, parsing.labels)["pixels"]
    assert share is not None
    if share < FLOOR:
        reason = f"its labels agree with {against} on {share:.1%} of the pixels, at least {FLOOR:.0%} are needed"
        return Check(False, against, count, share, reason)
    return Check(True, against, count, share)


def check_precisions(
    bundle: Bundle, device: str, precisions: list[str], threads: int | None,
    crops: NDArray[np.uint8], box_scores: NDArray[np.float32],
) -> Checked:  # fmt: skip
    """Open an engine a precision and check it against FP32 on crops (N, H, W, 3); FP32 itself against ONNX Runtime
    where that is installed. An engine that does not open or raises fails its check; Ctrl-C is not caught."""
    checked = Checked()
    _find_reference(checked, bundle, device, threads, crops, box_scores)
    for precision in precisions:
        try:
            if precision not in checked.engines:
                checked.engines[precision] = open_engine(bundle, device, precision, KERNEL_TAIL_OUTPUTS, threads)
            engine = checked.engines[precision]
            parsing = checked.parsings.get(precision) or parse_crops(engine, bundle, crops, box_scores)
        except Exception as error:  # runtimes raise what they like
            checked.checks[precision] = Check(False, reason=f"it does not run: {_line(error)}")
            continue
        checked.parsings[precision] = parsing
        if precision == "fp32":
            checked.checks[precision] = _against_oracle(bundle, engine, parsing, crops, box_scores)
        else:
            checked.checks[precision] = judge(parsing, checked.reference, checked.reference_name)
    checked.engines = {p: checked.engines[p] for p in precisions if checked.checks[p].passed}
    return checked


def _find_reference(
    checked: Checked, bundle: Bundle, device: str, threads: int | None,
    crops: NDArray[np.uint8], box_scores: NDArray[np.float32],
) -> None:  # fmt: skip
    """FP32 on the same device; on the CPU where the device has no FP32 engine; None where neither runs."""
    for where in dict.fromkeys((device, "cpu")):
        try:
            engine = open_engine(bundle, where, "fp32", KERNEL_TAIL_OUTPUTS, threads)
            parsing = parse_crops(engine, bundle, crops, box_scores)
        except Exception:  # the loop over the precisions reports it where FP32 was asked for
            continue
        if where == device:
            checked.engines["fp32"], checked.parsings["fp32"] = engine, parsing
        if parsing.finite:
            checked.reference, checked.reference_name = parsing, f"fp32 on {engine.runtime}"
            return


def _against_oracle(
    bundle: Bundle, engine: Engine, parsing: CropParsing, crops: NDArray[np.uint8], box_scores: NDArray[np.float32]
) -> Check:
    """FP32 has no wider precision to be compared with, so another runtime stands in."""
    if engine.runtime == "onnxruntime" or importlib.util.find_spec("onnxruntime") is None:
        return judge(parsing, None, "itself")
    few = slice(0, ORACLE_CROPS)
    oracle = open_engine(bundle, "onnxruntime", "fp32", KERNEL_TAIL_OUTPUTS)
    reference = parse_crops(oracle, bundle, crops[few], box_scores[few])
    scores = {name: values[few] for name, values in parsing.scores.items()}
    return judge(CropParsing(parsing.labels[few], scores, parsing.finite), reference, "fp32 on onnxruntime")


def _line(error: Exception) -> str:
    if isinstance(error, QanetError):
        return error.line()
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}"
