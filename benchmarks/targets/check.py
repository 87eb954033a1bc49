"""Correct before fast: an engine that fails this check, by its outputs or by its precision, is not timed."""

import importlib.util
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.benchmarks.targets.agreement import CropParsing, label_agreement, parse_crops
from qanet.benchmarks.targets.execution import describe_execution, precision_refusal
from qanet.benchmarks.targets.variants import Variant
from qanet.bundle import Bundle
from qanet.errors import QanetError
from qanet.runtime.backends.base import KERNEL_TAIL_OUTPUTS, Engine
from qanet.runtime.backends.select import WrongAnswers, open_engine

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
            "passed": self.passed,
            "against": self.against,
            "crops": self.crops,
            "label_agreement": share,
            "floor": FLOOR,
            "reason": self.reason,
        }


@dataclass
class Checked:
    """Engines that may be timed, what they say about the crops, and the verdicts; by the variant's label."""

    engines: dict[str, Engine] = field(default_factory=dict)
    parsings: dict[str, CropParsing] = field(default_factory=dict)
    checks: dict[str, Check] = field(default_factory=dict)
    executions: dict[str, dict[str, Any]] = field(default_factory=dict)
    open_ms: dict[str, float] = field(default_factory=dict)  # to load or compile the engine
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


def check_variants(
    bundle: Bundle,
    variants: Sequence[Variant],
    threads: int | None,
    crops: NDArray[np.uint8],
    box_scores: NDArray[np.float32],
) -> Checked:
    """Open the engines of one bundle and check each against FP32 on crops (N, H, W, 3); FP32 itself against ONNX
    Runtime where that is installed. An engine that does not open, raises, or computes in another precision than asked
    fails its check; Ctrl-C is not caught."""
    checked = Checked()
    reference = _find_reference(checked, bundle, variants, threads, crops, box_scores)
    for variant in variants:
        label = variant.label
        try:
            if label not in checked.engines:
                _open(checked, variant, threads)
            engine = checked.engines[label]
            checked.executions[label] = describe_execution(bundle, engine)
            parsing = checked.parsings.get(label) or parse_crops(engine, bundle, crops, box_scores)
        except WrongAnswers as error:
            checked.checks[label] = Check(False, "the known answers", reason=f"{error.fact}: {error.got}")
            continue
        except Exception as error:  # runtimes raise what they like
            checked.checks[label] = Check(False, reason=f"it does not run: {_line(error)}")
            continue
        checked.parsings[label] = parsing
        refusal = precision_refusal(variant.precision, checked.executions[label])
        if refusal is not None:
            checked.checks[label] = Check(False, crops=len(crops), reason=refusal)
        elif label == reference:
            checked.checks[label] = _against_oracle(bundle, engine, parsing, crops, box_scores)
        else:
            checked.checks[label] = judge(parsing, checked.reference, checked.reference_name)
    checked.engines = {v.label: checked.engines[v.label] for v in variants if checked.checks[v.label].passed}
    return checked


def _open(checked: Checked, variant: Variant, threads: int | None) -> None:
    """Open a variant's engine and note how long that took."""
    begin = time.perf_counter()
    engine = open_engine(variant.bundle, variant.device, variant.precision, variant.outputs, threads)
    checked.open_ms[variant.label] = round((time.perf_counter() - begin) * 1e3, 3)
    checked.engines[variant.label] = engine


def _find_reference(
    checked: Checked,
    bundle: Bundle,
    variants: Sequence[Variant],
    threads: int | None,
    crops: NDArray[np.uint8],
    box_scores: NDArray[np.float32],
) -> str | None:
    """The label of the variant that is FP32 with the kernel tail; else FP32 is opened beside the variants, on their
    device or the CPU, and None returned."""
    for variant in variants:
        if (variant.precision, variant.tail) == ("fp32", "kernel"):
            try:
                _open(checked, variant, threads)
                parsing = parse_crops(checked.engines[variant.label], bundle, crops, box_scores)
            except Exception:  # the loop over the variants reports it
                continue
            checked.parsings[variant.label] = parsing
            if parsing.finite:
                checked.reference = parsing
                checked.reference_name = f"fp32 on {checked.engines[variant.label].runtime}"
                return variant.label
    for where in dict.fromkeys([*(variant.device for variant in variants), "cpu"]):
        try:
            engine = open_engine(bundle, where, "fp32", KERNEL_TAIL_OUTPUTS, threads)
            parsing = parse_crops(engine, bundle, crops, box_scores)
        except Exception:  # there is no reference then, and the checks say so
            continue
        if parsing.finite:
            checked.reference, checked.reference_name = parsing, f"fp32 on {engine.runtime}"
            break
    return None


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
