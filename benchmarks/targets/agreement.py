"""How far a precision's labels and scores are from FP32's, on the same crops."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.bundle import Bundle
from qanet.quality import clamp_iou, fuse_quality
from qanet.runtime.backends.base import Engine
from qanet.runtime.kernels import choose_kernels
from qanet.runtime.parser import MAX_BATCH

SCORES = ("quality", "iou", "pixel")


@dataclass(frozen=True)
class CropParsing:
    """What an engine says about N crops.

    Attributes:
        labels: (N, H, W) uint8 at crop resolution.
        scores: "quality", "iou" and "pixel", each (N,) float32.
        finite: whether every output of the engine was finite.
    """

    labels: NDArray[np.uint8]
    scores: dict[str, NDArray[np.float32]]
    finite: bool


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


def label_agreement(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> dict[str, float | None]:
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


def compare(reference: CropParsing, candidate: CropParsing) -> dict[str, Any]:
    """Agreement of labels and differences of scores, as plain data for results.json."""
    agreement: dict[str, Any] = {"crops": len(reference.labels)}
    agreement |= _rounded(label_agreement(reference.labels, candidate.labels))
    for name in SCORES:
        difference = np.abs(reference.scores[name].astype(np.float64) - candidate.scores[name])
        agreement[f"{name}_score_difference"] = _rounded(
            {"mean": float(difference.mean()), "max": float(difference.max())}
        )
    return agreement


def _rounded(values: dict[str, float | None]) -> dict[str, float | None]:
    return {key: None if value is None else round(value, 6) for key, value in values.items()}
