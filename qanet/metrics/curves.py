"""From matched detections to numbers: average precision, rank correlation, expected calibration error."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

ECE_BINS = 10


@dataclass(eq=False)
class Detections:
    """Detections with the IoU and the number of their best ground truth: a few numbers each, never a map.

    Attributes:
        truths: (K,) number of ground truths per class.
    """

    truths: NDArray[np.int64]
    _scores: list[NDArray[np.float64]] = field(default_factory=list)
    _ious: list[NDArray[np.float64]] = field(default_factory=list)
    _targets: list[NDArray[np.int64]] = field(default_factory=list)
    _classes: list[NDArray[np.int64]] = field(default_factory=list)
    _numbered: int = 0

    def add(
        self,
        scores: NDArray[np.float64],
        ious: NDArray[np.float64],
        targets: NDArray[np.int64],
        classes: NDArray[np.int64],
        truth_classes: NDArray[np.int64],
    ) -> None:
        """Add one image.

        Args:
            scores, ious: (R,) score of each detection and IoU with its best ground truth.
            targets: (R,) index of that ground truth in this image; anything where the IoU is negative.
            classes, truth_classes: (R,) and (P,) class of each detection and of each ground truth.
        """
        self._scores.append(scores)
        self._ious.append(ious)
        self._targets.append(targets + self._numbered)
        self._classes.append(classes)
        self.truths += np.bincount(truth_classes, minlength=len(self.truths))
        self._numbered += len(truth_classes)

    def column(self, name: str) -> NDArray:
        """All images' "scores", "ious", "targets" or "classes" as one array, in the order added."""
        parts = getattr(self, f"_{name}")
        return np.concatenate(parts) if parts else np.zeros(0, np.float64 if name in ("scores", "ious") else np.int64)


def ranking(scores: NDArray[np.float64], *, nan_first: bool = False, as_text: bool = False) -> NDArray[np.int64]:
    """(R,) indices by descending score.

    Args:
        scores: (R,) scores.
        nan_first: NaN (and among equals the later one) first, as an ascending sort read backwards gives it;
            otherwise NaN last and equals in their own order.
        as_text: compare the scores' decimal text.
    """
    if as_text:
        return np.argsort(np.array([str(score) for score in scores.tolist()], str), kind="stable")[::-1]
    if nan_first:
        return np.argsort(scores, kind="stable")[::-1]
    return np.argsort(-scores, kind="stable")


def true_positives(
    ious: NDArray[np.float64], targets: NDArray[np.int64], threshold: float, *, reuse: bool
) -> NDArray[np.bool_]:
    """Which ranked detections are true positives: IoU strictly above the threshold and the ground truth unused.

    Args:
        ious, targets: (R,) in descending order of score; targets are numbered over all images.
        reuse: let a ground truth count again and again.
    """
    hit = ious > threshold
    if reuse:
        return hit
    candidates = np.flatnonzero(hit)
    first = np.unique(targets[candidates], return_index=True)[1]
    positive = np.zeros(len(ious), bool)
    positive[candidates[first]] = True
    return positive


def average_precision(positive: NDArray[np.bool_], truths: int, *, absent: float) -> float:
    """Area under the precision envelope at every recall (VOC, all points).

    Args:
        positive: (R,) true positives by descending score.
        truths: number of ground truths.
        absent: the value where there is neither a ground truth nor a detection.
    Returns:
        a fraction; above 1 only if `positive` holds more than `truths`. nan with detections but no ground truth.
    """
    if not truths:
        return float("nan") if len(positive) else absent
    hits = np.cumsum(positive)
    recall = np.concatenate(([0.0], hits / truths, [1.0]))
    precision = np.concatenate(([0.0], hits / np.arange(1, len(hits) + 1), [0.0]))
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    steps = np.flatnonzero(recall[1:] != recall[:-1])
    return float(np.sum((recall[steps + 1] - recall[steps]) * envelope[steps + 1]))


def mean_defined(values: NDArray[np.float64]) -> float:
    """Mean of the values that are not nan; nan where none is."""
    defined = values[~np.isnan(values)]
    return float(np.mean(defined)) if defined.size else float("nan")


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,) ranks from 0, equals sharing the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts + 1) / 2)[inverse]


def rank_correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Spearman's rank correlation over the pairs that are finite in both.

    Returns:
        -1..1; nan with fewer than two pairs, or where either side is constant.
    """
    finite = np.isfinite(first) & np.isfinite(second)
    if finite.sum() < 2:
        return float("nan")
    one, two = _ranks(first[finite]), _ranks(second[finite])
    one, two = one - one.mean(), two - two.mean()
    spread = float(np.sqrt(np.sum(one**2) * np.sum(two**2)))
    return float(np.sum(one * two) / spread) if spread else float("nan")


def calibration_error(scores: NDArray[np.float64], truth: NDArray[np.float64], bins: int = ECE_BINS) -> float:
    """Expected calibration error: how far a score is, on average, from the IoU it stands for.

    Scores fall into `bins` of equal width over 0..1 (outside: the first or last bin); the error is the mean of
    |mean score - mean true IoU| weighted by the bins' sizes (arXiv 1706.04599, with IoU in place of accuracy).

    Returns:
        the error in units of the score; nan without a finite pair.
    """
    finite = np.isfinite(scores) & np.isfinite(truth)
    if not finite.any():
        return float("nan")
    scores, truth = scores[finite], truth[finite]
    place = np.clip((scores * bins).astype(np.int64), 0, bins - 1)
    gaps = np.bincount(place, scores, bins) - np.bincount(place, truth, bins)
    return float(np.abs(gaps).sum() / len(scores))
