"""Detections against true boxes: recall at a rate of false boxes, average precision, recall and precision."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from qanet.errors import QanetError
from qanet.geometry import pairwise_iou

_HALF = 0.5  # a detection with more than this share inside an unknown area does not count


@dataclass(frozen=True, eq=False)
class DetectedImage:
    """One image.

    Attributes:
        boxes, scores: (N, 4) xyxy and (N,) what was detected.
        true: (M, 4) boxes to be found.
        neutral: (K, 4) boxes that need not be found; a detection on one is neither right nor false.
        areas: (L, 4) without ground truth, such as crowds; a detection half inside one is neither.

    >>> person, other = [0, 0, 10, 20], [40, 0, 50, 20]
    >>> boxes, scores = np.array([person, other], np.float32), np.array([0.9, 0.8], np.float32)
    >>> image = DetectedImage(boxes, scores, true=np.array([person], np.float32))
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    true: NDArray[np.float32]
    neutral: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    areas: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 4), np.float32))


@dataclass(frozen=True)
class Recall:
    """True boxes found with one score threshold: the lowest that keeps the false boxes per image within a rate."""

    recall: float  # nan without a true box
    threshold: float  # detections of this score or more count; inf where none may
    false_per_image: float
    true_boxes: int
    images: int


def recall_at_false_rate(images: Sequence[DetectedImage], false_per_image: float, iou: float = 0.5) -> Recall:
    """Match by descending score, each detection with the free true box of greatest IoU; second boxes are false.

    Raises:
        QanetError: no images, a rate below 0, or an IoU outside (0, 1].

    >>> person, other = [0, 0, 10, 20], [40, 0, 50, 20]
    >>> boxes, scores = np.array([other, person], np.float32), np.array([0.9, 0.8], np.float32)
    >>> image = DetectedImage(boxes, scores, true=np.array([person], np.float32))
    >>> recall_at_false_rate([image], false_per_image=0).recall, recall_at_false_rate([image], false_per_image=1).recall
    (0.0, 1.0)
    """
    if not images or false_per_image < 0 or not 0 < iou <= 1:
        raise QanetError(
            "nothing to measure",
            expected="images, a rate of 0 or more, an IoU in (0, 1]",
            got=(len(images), false_per_image, iou),
        )
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
    near = pairwise_iou(image.boxes, image.neutral).max(1, initial=0.0) >= iou
    near |= _share_inside(image.boxes, image.areas).max(1, initial=0.0) > _HALF
    free = np.ones(len(image.true), bool)
    for index in np.argsort(-image.scores, kind="stable"):
        candidates = np.where(free, overlaps[index], -1.0)
        best = int(candidates.argmax()) if len(candidates) else -1
        if best >= 0 and candidates[best] >= iou:
            free[best], verdicts[index] = False, 1
        elif near[index]:
            verdicts[index] = -1
    return verdicts


def average_precision(images: Sequence[DetectedImage], iou: float = 0.5) -> float:
    """COCO's average precision at one IoU: monotone precision at 101 recalls; nan without a true box.

    >>> boxes = np.array([[40, 0, 50, 20], [0, 0, 10, 20]], np.float32)  # the better score is on no person
    >>> average_precision([DetectedImage(boxes, np.array([0.9, 0.8], np.float32), true=boxes[1:])])
    0.5
    """
    return _precision_of([image.scores for image in images], [_verdicts(i, iou) for i in images], _true(images))


def bootstrapped_precisions(
    images: Sequence[DetectedImage], iou: float = 0.5, rounds: int = 1000, seed: int = 0
) -> NDArray[np.float64]:
    """(rounds,) average precisions of as many images, drawn with replacement; the same draws for the same seed.

    Their percentiles make an interval; the differences between two detectors make a paired one.

    >>> boxes = np.array([[0, 0, 10, 20]], np.float32)
    >>> image = DetectedImage(boxes, np.array([0.9], np.float32), true=boxes)
    >>> bootstrapped_precisions([image, image], rounds=3).tolist()
    [1.0, 1.0, 1.0]
    """
    scores, verdicts = [image.scores for image in images], [_verdicts(image, iou) for image in images]
    people = [len(image.true) for image in images]
    picks = np.random.default_rng(seed).integers(0, len(images), (rounds, len(images)))
    return np.array(
        [
            _precision_of([scores[k] for k in pick], [verdicts[k] for k in pick], sum(people[k] for k in pick))
            for pick in picks
        ]
    )


def at_threshold(images: Sequence[DetectedImage], threshold: float, iou: float = 0.5) -> tuple[float, float]:
    """Recall and precision of the detections with a score of `threshold` or more; nan without a true box, or without
    a detection.

    >>> boxes = np.array([[0, 0, 10, 20], [40, 0, 50, 20]], np.float32)
    >>> at_threshold([DetectedImage(boxes, np.array([0.9, 0.8], np.float32), true=boxes[:1])], threshold=0.5)
    (1.0, 0.5)
    """
    right = [v[image.scores >= threshold] for image, v in ((i, _verdicts(i, iou)) for i in images)]
    found, false = (sum(int(np.count_nonzero(v == which)) for v in right) for which in (1, 0))
    total = _true(images)
    return found / total if total else float("nan"), found / (found + false) if found + false else float("nan")


def _true(images: Sequence[DetectedImage]) -> int:
    return sum(len(image.true) for image in images)


def _precision_of(scores: list[NDArray[np.float32]], verdicts: list[NDArray[np.int64]], total: int) -> float:
    """Average precision of the detections of all images; `total` people were to be found."""
    if total == 0:
        return float("nan")
    right = np.concatenate(verdicts)[np.argsort(-np.concatenate(scores), kind="stable")]
    right = right[right >= 0]  # neutral ones do not count
    found = np.cumsum(right)
    recall, precision = found / total, found / np.arange(1, len(right) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.append(best, 0.0)[np.searchsorted(recall, np.linspace(0, 1, 101))].mean())


def _share_inside(boxes: NDArray[np.float32], areas: NDArray[np.float32]) -> NDArray[np.float32]:
    """Share of every box (N, 4) that lies in every area (M, 4), xyxy; (N, M) float32."""
    low = np.maximum(boxes[:, None, :2], areas[None, :, :2])
    common = np.clip(np.minimum(boxes[:, None, 2:], areas[None, :, 2:]) - low, 0, None).prod(2)
    return (common / np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(1), 1e-9)[:, None]).astype(np.float32)
