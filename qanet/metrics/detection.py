"""Detections against true boxes: how many are found while so many boxes an image are on nobody."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from qanet.boxes import pairwise_iou
from qanet.errors import QanetError


@dataclass(frozen=True, eq=False)
class DetectedImage:
    """One image.

    Attributes:
        boxes, scores: (N, 4) xyxy and (N,) what was detected.
        true: (M, 4) boxes to be found.
        neutral: (K, 4) boxes that need not be found; a detection on one is neither right nor false.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    true: NDArray[np.float32]
    neutral: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 4), np.float32))


@dataclass(frozen=True)
class Recall:
    """True boxes found with one score threshold: the least that keeps the false boxes an image within a rate."""

    recall: float  # nan where nothing was to be found
    threshold: float  # detections of this score or more count; inf where none may
    false_per_image: float
    true_boxes: int
    images: int


def recall_at_false_rate(images: Sequence[DetectedImage], false_per_image: float, iou: float = 0.5) -> Recall:
    """Match by descending score, each detection with the free true box of greatest IoU; second boxes are false.

    Raises:
        QanetError: no images, or a rate or an IoU that means nothing.
    """
    if not images or false_per_image < 0 or not 0 < iou <= 1:
        raise QanetError(
            "nothing to measure", expected="images, a rate of 0 or more, an IoU in (0, 1]",
            got=(len(images), false_per_image, iou),
        )  # fmt: skip
    verdicts = [_verdicts(image, iou) for image in images]
    scores = np.concatenate([image.scores for image in images]).astype(np.float64)
    right = np.concatenate([v == 1 for v in verdicts])
    false = np.concatenate([v == 0 for v in verdicts])
    total = sum(len(image.true) for image in images)
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.diff(scores[order], append=-np.inf))  # a threshold takes all detections of one score
    found, wrong = np.cumsum(right[order])[ends], np.cumsum(false[order])[ends]
    allowed = np.flatnonzero(wrong <= false_per_image * len(images) + 1e-9)
    share = float("nan") if total == 0 else 0.0
    if len(allowed) == 0:
        return Recall(share, float("inf"), 0.0, total, len(images))
    last = allowed[-1]
    threshold = float(scores[order][ends[last]])
    recall = share if total == 0 else float(found[last] / total)
    return Recall(recall, threshold, float(wrong[last] / len(images)), total, len(images))


def _verdicts(image: DetectedImage, iou: float) -> NDArray[np.int64]:
    """(N,) of each detection: 1 right, 0 false, -1 neutral."""
    verdicts = np.zeros(len(image.boxes), np.int64)
    overlaps = pairwise_iou(image.boxes, image.true)  # (N, M)
    near = pairwise_iou(image.boxes, image.neutral).max(1, initial=0.0)
    free = np.ones(len(image.true), bool)
    for index in np.argsort(-image.scores, kind="stable"):
        candidates = np.where(free, overlaps[index], -1.0)
        best = int(candidates.argmax()) if len(candidates) else -1
        if best >= 0 and candidates[best] >= iou:
            free[best], verdicts[index] = False, 1
        elif near[index] >= iou:
            verdicts[index] = -1
    return verdicts
