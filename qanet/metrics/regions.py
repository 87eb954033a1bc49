"""Regions: the ground truth's parts, pixels in common of two id maps, the best match of every region."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qanet.metrics.records import Truth


def truth_parts(truth: Truth, num_classes: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.integer]]:
    """The parts of an image: from its Instance_ids map and table, or one per class of each person.

    Returns:
        (L,) part ids, ascending, (L,) their classes in 1..C-1, and the (H, W) map of part ids, 0 = none.
    """
    if truth.parts is not None:
        listed = np.asarray(truth.part_table, np.int64).reshape(-1, 3)[:, :2]
        listed = np.unique(listed[(listed[:, 0] > 0) & (listed[:, 1] > 0) & (listed[:, 1] < num_classes)], axis=0)
        listed = listed[listed[:, 0] <= int(truth.parts.max(initial=0))]
        return listed[:, 0], listed[:, 1], truth.parts
    front = (truth.category > 0) & (truth.category < num_classes) & (truth.human > 0)
    codes = np.where(front, truth.human.astype(np.int32) * num_classes + truth.category, 0)
    ids = np.flatnonzero(np.bincount(codes.ravel())[1:]) + 1
    return ids, ids % num_classes, codes


@dataclass(frozen=True, eq=False)
class Overlaps:
    """Pixels in common of two id maps, over the ids that occur, ascending, without 0."""

    ids: NDArray[np.int64]  # (A,)
    areas: NDArray[np.int64]  # (A,) pixels
    truth_ids: NDArray[np.int64]  # (B,)
    truth_areas: NDArray[np.int64]  # (B,) pixels
    common: NDArray[np.int64]  # (A, B) pixels


def overlaps(
    shown: NDArray[np.integer], truth: NDArray[np.integer], known: NDArray[np.bool_] | None = None
) -> Overlaps:
    """Count the pixels that the ids of a painted map share with those of a ground-truth map.

    Args:
        shown, truth: (H, W) ids; 0 = none.
        known: (H, W); pixels outside it are left out. None: all count.
    """
    front = (shown > 0) | (truth > 0)
    if known is not None:
        front &= known
    shown, truth = shown[front], truth[front]
    counts, truth_counts = np.bincount(shown, minlength=1), np.bincount(truth, minlength=1)
    ids, truth_ids = 1 + np.flatnonzero(counts[1:]), 1 + np.flatnonzero(truth_counts[1:])
    row, column = np.zeros(len(counts), np.int64), np.zeros(len(truth_counts), np.int64)
    row[ids], column[truth_ids] = np.arange(len(ids)), np.arange(len(truth_ids))
    both = (shown > 0) & (truth > 0)
    codes = row[shown[both]] * len(truth_ids) + column[truth[both]]
    common = np.bincount(codes, minlength=len(ids) * len(truth_ids)).reshape(len(ids), len(truth_ids))
    return Overlaps(ids, counts[ids], truth_ids, truth_counts[truth_ids], common)


def match_regions(
    found: Overlaps, classes: NDArray[np.int64], columns: NDArray[np.int64], truth_classes: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The ground-truth region of greatest IoU among those of a painted region's own class.

    Args:
        found: the overlaps.
        classes: (A,) class ids of the painted regions.
        columns: (P,) columns of `found` that are ground truth.
        truth_classes: (P,) their class ids.
    Returns:
        (A,) IoU, -1 where the image has no region of that class, and (A,) index 0..P-1 of the match, -1 likewise.
    """
    if not len(columns) or not len(classes):
        return np.full(len(classes), -1.0), np.full(len(classes), -1, np.int64)
    common = found.common[:, columns]
    iou = common / (found.areas[:, None] + found.truth_areas[columns] - common)
    iou[classes[:, None] != truth_classes] = -1.0
    best = iou.argmax(axis=1)
    values = iou[np.arange(len(iou)), best]
    return values, np.where(values < 0, -1, best)
