"""From people to maps: order of painting, the semantic map, the instance map, its regions and their matches."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qanet.metrics.people import CroppedPerson
from qanet.metrics.records import Protocol, Truth


def ascending(scores: NDArray[np.float64], protocol: Protocol) -> NDArray[np.int64]:
    """(N,) indices from the lowest score to the highest; NaN on top (official) or below all (strict)."""
    if not protocol.nan_first:
        scores = np.where(np.isnan(scores), -np.inf, scores)
    return np.argsort(scores, kind="stable")


def paint_semantic(
    people: Sequence[CroppedPerson],
    box_scores: NDArray[np.float64],
    hw: tuple[int, int],
    threshold: float,
    protocol: Protocol,
) -> NDArray[np.uint8]:
    """The image's semantic map: people painted by ascending box score, foreground over what is there.

    Args:
        people: N predictions, before NMS.
        box_scores: (N,) detector scores; a box score under `threshold` is not painted.
        hw: (H, W) pixels.
    Returns:
        (H, W) uint8 class ids.
    """
    canvas = np.zeros(hw, np.uint8)
    for index in ascending(box_scores, protocol):
        if box_scores[index] < threshold:
            continue
        labels = people[index].labels
        np.copyto(canvas[people[index].window], labels, where=labels > 0)
    return canvas


@dataclass(frozen=True, eq=False)
class Painted:
    """The instance map of an image and its regions: the visible pixels of one class of one person."""

    instances: NDArray[np.int64]  # (K,) indices of the people, in the order of their ids 1..K in instance_map
    instance_map: NDArray[np.int32]  # (H, W) ids, 0 = no person; ids of people wholly covered do not occur
    regions: NDArray[np.int32]  # (H, W) region ids, 0 = none
    region_instance: NDArray[np.int64]  # (R,) index of the person of the regions 1..R
    region_class: NDArray[np.int64]  # (R,) class of the regions 1..R


def paint_instances(
    people: Sequence[CroppedPerson], order: NDArray[np.int64], hw: tuple[int, int], num_classes: int, protocol: Protocol
) -> Painted:
    """Paint people in the given order and number their visible (person, class) regions.

    Args:
        people: N predictions.
        order: (K,) indices, first painted first.
        hw: (H, W) pixels.
    Returns:
        the maps; regions are numbered by person in order of painting, then by class.
    """
    codes = np.zeros(hw, np.int32)  # id of the person * C + class
    for rank, index in enumerate(order, start=1):
        labels = people[index].labels
        np.copyto(codes[people[index].window], labels.astype(np.int32) + rank * num_classes, where=labels > 0)
    found = np.flatnonzero(np.bincount(codes.ravel())[1:]) + 1
    numbers = np.zeros((len(order) + 1) * num_classes, np.int32)
    found = found[: protocol.max_regions]
    numbers[found] = np.arange(1, len(found) + 1)
    owner = found // num_classes - 1
    return Painted(order, codes // num_classes, numbers[codes], np.asarray(order)[owner], found % num_classes)


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


@dataclass(frozen=True, eq=False)
class RegionMatch:
    """Every visible region of an image's painted people with the ground truth of its class of greatest IoU."""

    owners: NDArray[np.int64]  # (R,) index of the person
    classes: NDArray[np.int64]  # (R,)
    iou: NDArray[np.float64]  # (R,); -1 where the image has no such ground truth
    target: NDArray[np.int64]  # (R,) index among the ground truths; -1 likewise
    truth_classes: NDArray[np.int64]  # (P,) class of each ground truth


def match_parts(
    truth: Truth, painted: Painted, num_classes: int, known: NDArray[np.bool_] | None = None
) -> RegionMatch:
    """(person, class) regions against the ground truth's parts: AP^r.

    Args:
        known: (H, W); pixels outside it are left out. None: all count.
    """
    ids, part_classes, parts = truth_parts(truth, num_classes)
    found = overlaps(painted.regions, parts, known)
    present = np.isin(ids, found.truth_ids)  # a part that is listed but has no pixel is none
    part_classes = part_classes[present]
    columns = np.searchsorted(found.truth_ids, ids[present])
    classes = painted.region_class[found.ids - 1]
    iou, target = match_regions(found, classes, columns, part_classes)
    return RegionMatch(painted.region_instance[found.ids - 1], classes, iou, target, part_classes)


def match_humans(truth: Truth, painted: Painted, known: NDArray[np.bool_] | None = None) -> RegionMatch:
    """Visible people's masks against the ground truth's: AP^h; every class is 0."""
    found = overlaps(painted.instance_map, truth.human, known)
    zeros, truth_zeros = np.zeros(len(found.ids), np.int64), np.zeros(len(found.truth_ids), np.int64)
    iou, target = match_regions(found, zeros, np.arange(len(truth_zeros)), truth_zeros)
    return RegionMatch(painted.instances[found.ids - 1], zeros, iou, target, truth_zeros)
