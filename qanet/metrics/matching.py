"""What the predictions of an image share with its ground truth, whatever their scores: counted once, ranked often."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qanet.metrics.overlap import Person, TruthTable, class_iou
from qanet.metrics.painting import Painted
from qanet.metrics.records import Truth
from qanet.metrics.regions import match_regions, overlaps, truth_parts
from qanet.metrics.report import THRESHOLDS


@dataclass(frozen=True, eq=False)
class PeopleMatch:
    """Every predicted person with the ground truth of greatest mean class IoU: AP^p, PCP and the scores' worth."""

    iou: NDArray[np.float64]  # (N,) mean class IoU, background included; -1 where there is no ground truth
    target: NDArray[np.int64]  # (N,) index of that ground truth; -1 where there is none
    shares: NDArray[np.float64]  # (N, 9) share of its classes whose IoU exceeds each threshold
    class_iou: NDArray[np.float64]  # (N, C) IoU per class with it; nan where neither has the class


def match_people(table: TruthTable, people: Sequence[Person]) -> PeopleMatch:
    """Match N people of an image with its ground truth."""
    count, classes = len(people), table.num_classes
    match = PeopleMatch(
        np.full(count, -1.0),
        np.full(count, -1, np.int64),
        np.zeros((count, len(THRESHOLDS))),
        np.full((count, classes), np.nan),
    )
    for index, person in enumerate(people if len(table.ids) else ()):
        iou = class_iou(table, person)  # (G, C)
        defined = ~np.isnan(iou)
        mean = np.where(defined, iou, 0).sum(1) / np.maximum(defined.sum(1), 1)
        mean[~defined.any(1)] = -1.0
        best = int(mean.argmax())
        match.iou[index], match.target[index], match.class_iou[index] = mean[best], best, iou[best]
        parts = np.count_nonzero(table.counts[best, 1:classes])
        correct = (iou[best, 1:, None] > np.array(THRESHOLDS)).sum(0)
        match.shares[index] = correct / parts if parts else 0.0
    return match


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
