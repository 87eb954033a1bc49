"""Whole-map metrics: the confusion histogram with mIoU, accuracies and F-measures, and boundary IoU."""

import numpy as np
from numpy.typing import NDArray

from qanet.metrics.curves import mean_defined

BOUNDARY_FRACTION = 0.02  # of the image's diagonal, as in arXiv 2103.16562
_EPSILON = 1e-10  # the published code's, so that an absent class counts 0


def confusion(truth: NDArray[np.uint8], predicted: NDArray[np.uint8], num_classes: int) -> NDArray[np.int64]:
    """(C, C) pixels by true class (row) and predicted class (column); ground truth outside [0, C) is dropped."""
    counted = truth < num_classes
    codes = truth[counted].astype(np.int32) * num_classes + predicted[counted]
    return np.bincount(codes, minlength=num_classes**2).reshape(num_classes, num_classes)


def summarize(histogram: NDArray[np.int64], *, absent_is_zero: bool) -> dict[str, float | NDArray[np.float64]]:
    """IoU, accuracy (recall) and F-measure per class and their means, and pixel accuracy.

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
    return _spread(across, labels.shape, radius, edge_axis=1) | _spread(down, labels.shape, radius, edge_axis=0)


def _spread(edges: NDArray[np.bool_], hw: tuple[int, ...], radius: int, edge_axis: int) -> NDArray[np.bool_]:
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
