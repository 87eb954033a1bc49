"""Correct before fast: an engine that fails this check, by its outputs or by its precision, is not timed."""

import importlib.util
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.benchmarks.schema import FLOOR, Agreement, Check, Difference, Execution
from qanet.benchmarks.variants import Variant
from qanet.bundle import Bundle
from qanet.errors import QanetError
from qanet.quality import clamp_iou, fuse_quality
from qanet.runtime.backends.base import KERNEL_TAIL_OUTPUTS, Engine, graph_name
from qanet.runtime.backends.openvino import cpu_signature, openvino_core
from qanet.runtime.backends.select import WrongAnswers, open_engine
from qanet.runtime.kernels import choose_kernels
from qanet.runtime.parser import MAX_BATCH

SCORES = ("quality", "iou", "pixel")
ORACLE_CROPS = 2
NARROW_SHARE = 0.5  # least share of the matrix products that an INT8 engine computes in INT8
_TYPES = {"f32": "fp32", "f16": "fp16", "bf16": "bf16", "u8": "int8", "i8": "int8"}
_PRODUCTS = {"Convolution", "Deconvolution", "FullyConnected", "MatMul"}
_ALIKE = {  # what counts as delivered
    "fp32": ("fp32",),
    "fp16": ("fp16", "bf16", "int8"),
    "bf16": ("bf16", "fp16", "int8"),
    "int8": ("int8",),
    "fp8": ("fp8",),
}


@dataclass(frozen=True)
class CropParsing:
    """The parsing of N crops by an engine.

    Attributes:
        labels: (N, H, W) uint8 at crop resolution.
        scores: "quality", "iou" and "pixel", each (N,) float32.
        finite: whether every output of the engine was finite.
    """

    labels: NDArray[np.uint8]
    scores: dict[str, NDArray[np.float32]]
    finite: bool


@dataclass
class Checked:
    """Engines that may be timed, their parsings of the crops, and the checks; by the variant's label."""

    engines: dict[str, Engine] = field(default_factory=dict)
    parsings: dict[str, CropParsing] = field(default_factory=dict)
    checks: dict[str, Check] = field(default_factory=dict)
    executions: dict[str, Execution] = field(default_factory=dict)
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
    if share < FLOOR:
        reason = f"its labels agree with {against} on {share:.1%} of the pixels, at least {FLOOR:.0%} are needed"
        return Check(False, against, count, round(share, 6), reason=reason)
    return Check(True, against, count, round(share, 6))


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
    """The label of the variant that is FP32 with the kernel tail; else FP32 is opened too, on their
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
        except Exception:  # without a reference, the checks report that
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


def parse_crops(
    engine: Engine, bundle: Bundle, crops: NDArray[np.uint8], box_scores: NDArray[np.float32]
) -> CropParsing:
    """Run crops (N, H, W, 3) uint8 BGR and box scores (N,) through the very engine that is timed, and its logits
    through the kernel tail with the crop itself as the image; an engine with the graph tail gives labels by itself.
    Outputs that are not finite give empty labels."""
    if "logits" not in engine.outputs:
        return _graph_tail_crops(engine, crops, box_scores)
    height, width = crops.shape[1:3]
    labels, iou, pixel = [], [], []
    for start in range(0, len(crops), MAX_BATCH):
        batch = slice(start, start + MAX_BATCH)
        outputs = engine.run(crops[batch], box_scores[batch])
        if not all(np.isfinite(outputs[name]).all() for name in ("logits", "iou_scores")):
            return CropParsing(np.zeros(crops.shape[:3], np.uint8), {}, finite=False)
        whole = np.tile(np.array([0, 0, width, height], np.float32), (len(outputs["logits"]), 1))
        scored = choose_kernels().pixel_score(outputs["logits"], whole, (height, width), bundle.threshold)
        labels += scored.labels
        iou.append(clamp_iou(outputs["iou_scores"]))
        pixel.append(scored.pixel_scores)
    scores = {"iou": np.concatenate(iou), "pixel": np.concatenate(pixel)}
    scores["quality"] = fuse_quality(np.clip(box_scores, 0, 1), scores["iou"], scores["pixel"], bundle.qam_weights)
    return CropParsing(np.stack(labels), scores, finite=True)


def _graph_tail_crops(engine: Engine, crops: NDArray[np.uint8], box_scores: NDArray[np.float32]) -> CropParsing:
    parts = [
        engine.run(crops[start : start + MAX_BATCH], box_scores[start : start + MAX_BATCH])
        for start in range(0, len(crops), MAX_BATCH)
    ]
    names = {"iou": "iou_scores", "pixel": "pixel_scores", "quality": "quality"}
    scores = {name: np.concatenate([part[output] for part in parts]) for name, output in names.items()}
    finite = all(np.isfinite(values).all() for values in scores.values())
    labels = np.concatenate([part["labels"] for part in parts]).astype(np.uint8)
    return CropParsing(labels if finite else np.zeros_like(labels), scores if finite else {}, finite)


def label_agreement(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> dict[str, Any]:
    """Shares of equal pixels and the mean IoU of two stacks of label maps of one shape.

    Returns:
        pixels: over all pixels; foreground: over the pixels that either map calls foreground, None when there is
        none; miou: mean over the classes, background included, that occur in either.
    """
    same = a == b
    foreground = (a > 0) | (b > 0)
    ious = []
    for class_id in np.union1d(np.unique(a), np.unique(b)):
        in_a, in_b = a == class_id, b == class_id
        ious.append((in_a & in_b).sum() / (in_a | in_b).sum())
    return {
        "pixels": float(same.mean()),
        "foreground": float(same[foreground].mean()) if foreground.any() else None,
        "miou": float(np.mean(ious)),
    }


def compare(reference: CropParsing, candidate: CropParsing, against: str = "fp32") -> Agreement:
    """Agreement of labels and differences of scores.

    Args:
        against: name of the reference.
    """
    labels = label_agreement(reference.labels, candidate.labels)
    differences = {}
    for name in SCORES:
        difference = np.abs(reference.scores[name].astype(np.float64) - candidate.scores[name])
        differences[name] = Difference(round(float(difference.mean()), 6), round(float(difference.max()), 6))
    return Agreement(
        against=against,
        crops=len(reference.labels),
        pixels=round(labels["pixels"], 6),
        foreground=None if labels["foreground"] is None else round(labels["foreground"], 6),
        miou=round(labels["miou"], 6),
        quality_score_difference=differences["quality"],
        iou_score_difference=differences["iou"],
        pixel_score_difference=differences["pixel"],
    )


def describe_execution(bundle: Bundle, engine: Engine) -> Execution:
    """The precision that an open engine computes in.

    `multiply_add_shares` come from the census of an engine that `qanet build` made for this runtime and CPU with the
    same floating-point type; None where the bundle has none.
    """
    floating_point = getattr(engine, "floating_point", None)
    shares = None
    here = cpu_signature(openvino_core()) if engine.runtime == "openvino" else None
    for entry in bundle.engines:
        alike = (entry.get("runtime"), entry.get("precision")) == (engine.runtime, engine.precision)
        if alike and entry.get("hint", floating_point) == floating_point and entry.get("cpu", here) == here:
            shares = (entry.get("census") or {}).get("multiply_add_shares")
            break
    return Execution(engine.runtime, graph_name(engine), floating_point, shares, count_products(engine))


def count_products(engine: Engine) -> dict[str, int] | None:
    """Precision -> matrix products of an open OpenVINO engine, from the graph it executes; None for other runtimes."""
    compiled = getattr(engine, "compiled", None)
    if compiled is None or not hasattr(compiled, "get_runtime_model"):
        return None
    counts: Counter[str] = Counter()
    for node in compiled.get_runtime_model().get_ordered_ops():
        info = node.get_rt_info()
        if str(info["layerType"].astype(str)) in _PRODUCTS:
            counts[_TYPES.get(str(info["runtimePrecision"].astype(str)), "other")] += 1
    return dict(counts) or None


def precision_refusal(precision: str, execution: Execution) -> str | None:
    """Why an engine may not be timed under the name of a precision; None where it may, or where nothing is reported.

    FP32 has to compute all matrix products in FP32, FP16 half of them or more in 16 bits or fewer, INT8 half of them
    or more in INT8: some layers are kept wide on purpose.
    """
    shares = execution.multiply_add_shares
    counts: dict[str, float] = shares or dict(execution.products or {})
    if not sum(counts.values()):
        return None
    what = "multiply-adds" if shares else "matrix products"
    delivered = sum(counts.get(kind, 0) for kind in _ALIKE[precision]) / sum(counts.values())
    if delivered >= (1.0 if precision == "fp32" else NARROW_SHARE):
        return None
    found = ", ".join(f"{kind} {value / sum(counts.values()):.0%}" for kind, value in counts.items() if value)
    return f"it was not built in {precision}: its {what} run in {found} on {execution.runtime}"


def execution_warning(precision: str, execution: Execution) -> str | None:
    """A sentence where a narrow precision was asked for and the layers that are not INT8 run in 32 bits, or where the
    runtime reports no precision; else None."""
    if precision == "fp32":
        return None
    if execution.floating_point == "f32":
        if precision not in ("fp16", "bf16"):
            return f"{precision}: {execution.runtime} ran all layers that are not INT8 in f32"
        return f"{precision}: {execution.runtime} ran all layers in f32: this processor has no such type"
    if execution.floating_point is None and not execution.multiply_add_shares:
        return f"{precision}: {execution.runtime} does not report the precision of its layers"
    return None
