"""From counts to numbers: average precision, rank correlation, calibration error, mIoU, F-measure, boundary IoU."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

ECE_BINS = 10
BOUNDARY_FRACTION = 0.02  # of the image's diagonal, as in arXiv 2103.16562
_EPSILON = 1e-10  # the published code's, so that an absent class counts 0


@dataclass(eq=False)
class MatchedDetections:
    """Detections with the IoU and the number of their best ground truth: a few numbers each, never a map.

    Attributes:
        truths: (K,) number of ground truths per class.
    """

    truths: NDArray[np.int64]
    _scores: list[NDArray[np.float64]] = field(default_factory=list)
    _ious: list[NDArray[np.float64]] = field(default_factory=list)
    _targets: list[NDArray[np.int64]] = field(default_factory=list)
    _classes: list[NDArray[np.int64]] = field(default_factory=list)
    _offsets: list[int] = field(default_factory=list)  # number of each image's first ground truth
    _truth_counts: list[NDArray[np.int64]] = field(default_factory=list)  # (K,) ground truths of each image
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
        counts = np.bincount(truth_classes, minlength=len(self.truths))
        self.truths += counts
        self._truth_counts.append(counts)
        self._offsets.append(self._numbered)
        self._numbered += len(truth_classes)

    @property
    def images(self) -> int:
        """Images added."""
        return len(self._scores)

    def take(self, images: Iterable[int]) -> "MatchedDetections":
        """The detections of some images, by their number in the order added; one that is named twice counts twice."""
        taken = MatchedDetections(np.zeros_like(self.truths))
        for image in images:
            truth_classes = np.repeat(np.arange(len(self.truths)), self._truth_counts[image])
            targets = self._targets[image] - self._offsets[image]
            taken.add(self._scores[image], self._ious[image], targets, self._classes[image], truth_classes)
        return taken

    def column(self, name: str) -> NDArray:
        """All images' "scores", "ious", "targets" or "classes" as one array, in the order added."""
        parts = getattr(self, f"_{name}")
        return np.concatenate(parts) if parts else np.zeros(0, np.float64 if name in ("scores", "ious") else np.int64)


def ranking(scores: NDArray[np.float64], *, nan_first: bool = False, as_text: bool = False) -> NDArray[np.int64]:
    """(R,) indices by descending score.

    Args:
        scores: (R,) scores.
        nan_first: NaN (and among equals the later one) first, as an ascending sort read backwards orders them;
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


def voc_average_precision(positive: NDArray[np.bool_], truths: int, *, absent: float) -> float:
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


def reliability(scores: NDArray[np.float64], truth: NDArray[np.float64], bins: int = ECE_BINS) -> NDArray[np.float64]:
    """The data of a reliability diagram: the mean score of each bin against the mean true IoU.

    Scores fall into `bins` of equal width over 0..1 (outside: the first or last bin); pairs that are not finite are
    left out.

    Returns:
        (bins, 3): number of pairs, mean score, mean true IoU; the means of an empty bin are nan.
    """
    finite = np.isfinite(scores) & np.isfinite(truth)
    scores, truth = scores[finite], truth[finite]
    place = np.floor(np.clip(scores * bins, 0, bins - 1)).astype(np.int64)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        means = [np.bincount(place, values, bins) / count for values in (scores, truth)]
    return np.column_stack([count, *means])


def calibration_error(table: NDArray[np.float64]) -> float:
    """Expected calibration error: how far a score is, on average, from the IoU it stands for.

    The mean of |mean score - mean true IoU| over the bins of `reliability`, weighted by their sizes (arXiv
    1706.04599, with IoU in place of accuracy).

    Returns:
        the error in units of the score; nan without a pair.
    """
    count = table[:, 0]
    if not count.any():
        return float("nan")
    gaps = np.abs(table[:, 1] - table[:, 2])
    return float(np.sum(gaps[count > 0] * count[count > 0]) / count.sum())


def confusion(truth: NDArray[np.uint8], predicted: NDArray[np.uint8], num_classes: int) -> NDArray[np.int64]:
    """(C, C) pixels by true class (row) and predicted class (column); ground truth outside [0, C) is dropped."""
    counted = truth < num_classes
    codes = truth[counted].astype(np.int32) * num_classes + predicted[counted]
    return np.bincount(codes, minlength=num_classes**2).reshape(num_classes, num_classes)


def summarize(histogram: NDArray[np.int64], *, absent_is_zero: bool) -> dict[str, float | NDArray[np.float64]]:
    """IoU, accuracy (recall) and F-measure per class and their means, pixel accuracy, and how many classes the ground
    truth lacks.

    Mean recall, the "mean recognition rate" of arXiv 1502.00739, runs over the classes of the ground truth and the
    mean F-measure (harmonic mean of precision and recall, Dice) over the classes of either map, whatever
    `absent_is_zero` says: neither is a metric of the published code.

    Args:
        histogram: (C, C) from `confusion`, summed over the images.
        absent_is_zero: count a class that does not occur as 0; otherwise it is nan and skipped. (Mean accuracy
            runs over the classes of the ground truth then, mIoU also over those that are only predicted.)
    """
    hits, rows, columns = np.diag(histogram), histogram.sum(1), histogram.sum(0)
    epsilon = _EPSILON if absent_is_zero else 0.0
    with np.errstate(invalid="ignore", divide="ignore"):
        iou = hits / (rows + columns - hits + epsilon)
        accuracy = hits / (rows + epsilon)
        pixel_accuracy = float(hits.sum() / histogram.sum())
        f_measure = 2 * hits / (rows + columns)
    return {
        "miou": mean_defined(iou),
        "pixel_accuracy": pixel_accuracy,
        "mean_accuracy": mean_defined(accuracy),
        "mean_recall": mean_defined(accuracy[rows > 0]),
        "mean_f_measure": mean_defined(f_measure),
        "classes_absent": float((rows == 0).sum()),
        "iou": iou,
        "accuracy": accuracy,
        "f_measure": f_measure,
    }


def annotated_f_measure(histogram: NDArray[np.int64]) -> float:
    """Mean F-measure over the classes that an image's annotation shows, background among them; nan where it shows none.

    Averaged over the images this is the F-score by which the course challenge on CelebAMask ranks. A class that is only
    predicted costs what it takes from the others, and rare classes weigh by the images they are in.

    Args:
        histogram: (C, C) from `confusion`, of the image alone.
    """
    hits, rows, columns = np.diag(histogram), histogram.sum(1), histogram.sum(0)
    shown = rows > 0
    return mean_defined(2 * hits[shown] / (rows + columns)[shown])


def boundary_band(labels: NDArray[np.uint8], radius: int, known: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
    """Pixels with a change of label inside the square of `radius` pixels around them.

    Args:
        labels: (H, W) class ids.
        radius: pixels.
        known: (H, W); a change to or from a pixel outside it does not count.
    Returns:
        (H, W) bool.
    """
    across, down = labels[:, 1:] != labels[:, :-1], labels[1:] != labels[:-1]
    if known is not None:
        across, down = across & known[:, 1:] & known[:, :-1], down & known[1:] & known[:-1]
    return _dilated(across, labels.shape, radius, edge_axis=1) | _dilated(down, labels.shape, radius, edge_axis=0)


def _dilated(edges: NDArray[np.bool_], hw: tuple[int, ...], radius: int, edge_axis: int) -> NDArray[np.bool_]:
    """(H, W) whether an edge lies inside the square around each pixel."""
    import cv2

    padded = np.zeros(hw, np.uint8)
    padded[: edges.shape[0], : edges.shape[1]] = edges
    # edge x lies between the columns x and x + 1: the square around x0 holds the edges x0 - r .. x0 + r - 1
    size = [2 * radius + 1, 2 * radius + 1]
    size[edge_axis] -= 1
    return np.asarray(cv2.dilate(padded, np.ones(size, np.uint8), anchor=(radius, radius)), bool)


def boundary_counts(
    truth: NDArray[np.uint8], predicted: NDArray[np.uint8], num_classes: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Intersection and union per class of the two semantic maps' inner boundaries (arXiv 2103.16562, boundary IoU).

    A pixel is on the inner boundary of its class when another class lies within d = 2 % of the image's diagonal, in a
    square of 2 d + 1 pixels, as d erosions by 3x3 give it. Two people of one class that touch have no boundary here:
    the maps are semantic. Unlike in the paper, the image's border is no boundary (people are cut there), and void is
    left out.

    Returns:
        (C,) intersections and (C,) unions in pixels, to be summed over the images.
    """
    radius = max(1, round(BOUNDARY_FRACTION * float(np.hypot(*truth.shape))))
    known = truth < num_classes
    true_band = boundary_band(truth, radius, known) & known
    predicted_band = boundary_band(predicted, radius) & known
    hits = np.bincount(truth[true_band & predicted_band & (truth == predicted)], minlength=num_classes)
    true = np.bincount(truth[true_band], minlength=num_classes)
    return hits, true + np.bincount(predicted[predicted_band], minlength=num_classes) - hits
