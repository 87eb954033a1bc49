"""Predicted people against each other and against the ground truth: IoU per class, best matches, parsing NMS.

Counts are integers and IoU is one float64 division of them, so an IoU that equals a threshold compares as equal.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from qanet.metrics.records import THRESHOLDS, Prediction, Protocol, Truth


@dataclass(frozen=True, eq=False)
class CroppedPerson:
    """A predicted person cropped to the bounding box of its foreground."""

    y0: int
    x0: int
    labels: NDArray[np.uint8]  # (h, w)
    counts: NDArray[np.int64]  # (C,) pixels per class; the background's is left 0, it depends on the image

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the image that the crop covers."""
        height, width = self.labels.shape
        return slice(self.y0, self.y0 + height), slice(self.x0, self.x0 + width)


def crop_person(prediction: Prediction, num_classes: int) -> CroppedPerson:
    """Crop a prediction to its foreground; a person without foreground becomes an empty crop."""
    x0, y0 = (0, 0) if prediction.roi is None else (int(prediction.roi[0]), int(prediction.roi[1]))
    rows = np.flatnonzero(prediction.labels.any(axis=1))
    columns = np.flatnonzero(prediction.labels.any(axis=0))
    if not rows.size:
        return CroppedPerson(y0, x0, np.zeros((0, 0), np.uint8), np.zeros(num_classes, np.int64))
    labels = prediction.labels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    counts = np.bincount(labels.ravel(), minlength=num_classes)
    counts[0] = 0
    return CroppedPerson(y0 + int(rows[0]), x0 + int(columns[0]), labels, counts)


@dataclass(frozen=True, eq=False)
class TruthTable:
    """An image's ground truth as one integer map, so that one bincount per prediction serves all its people."""

    ids: NDArray[np.int64]  # (G,) human ids, ascending
    joint: NDArray[np.int32]  # (H, W): (rank of the person, 0 = none) * (C + 1) + class, void = C
    num_classes: int

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """(G, C + 1) pixels of each person per class; column C holds the person's void pixels."""
        size = (len(self.ids) + 1) * (self.num_classes + 1)
        return np.bincount(self.joint.ravel(), minlength=size).reshape(-1, self.num_classes + 1)[1:]


def index_truth(truth: Truth, num_classes: int, *, void_people: bool) -> TruthTable:
    """Number the people of an image and join their ids with the classes.

    Args:
        truth: checked ground truth.
        num_classes: C, background included.
        void_people: whether a person without a pixel outside void still is a ground truth.
    """
    known = truth.category < num_classes
    seen = np.bincount((truth.human if void_people else truth.human[known]).ravel(), minlength=256)
    ids = 1 + np.flatnonzero(seen[1:])
    rank = np.zeros(256, np.int32)
    rank[ids] = np.arange(1, len(ids) + 1)
    joint = rank[truth.human] * np.int32(num_classes + 1) + np.where(known, truth.category, num_classes)
    return TruthTable(ids, joint.astype(np.int32, copy=False), num_classes)


def class_iou(table: TruthTable, person: CroppedPerson) -> NDArray[np.float64]:
    """IoU per class of one prediction with every person of the image.

    A person's void pixels are left out; other people's pixels are background, void or not.

    Returns:
        (G, C) float64; nan where a class is in neither.
    """
    classes, people = table.num_classes, len(table.ids)
    front = person.labels > 0
    codes = table.joint[person.window][front] * np.int64(classes) + person.labels[front]
    size = (people + 1) * (classes + 1) * classes
    # (G, C + 1 true, C predicted) pixels, the predicted background left out
    confusion = np.bincount(codes, minlength=size).reshape(people + 1, classes + 1, classes)[1:]
    true = table.counts[:, :classes].copy()
    predicted = person.counts - confusion[:, classes]
    hits = np.diagonal(confusion, axis1=1, axis2=2).copy()
    # the background, by subtraction from all the pixels that count for the person
    area = table.joint.size - table.counts[:, classes]
    true[:, 0] = area - true[:, 1:].sum(1)
    predicted[:, 0] = area - predicted[:, 1:].sum(1)
    both = confusion[:, 1:classes, 1:].sum((1, 2))
    hits[:, 0] = area - (true[:, 1:].sum(1) + predicted[:, 1:].sum(1) - both)
    with np.errstate(invalid="ignore"):
        return hits / (true + predicted - hits)


def pair_mean_iou(first: CroppedPerson, second: CroppedPerson, area: int) -> float:
    """Mean class IoU of two predictions, background included, over the classes that either has.

    Args:
        first, second: people of the same image.
        area: pixels of the image.
    """
    hits = np.zeros_like(first.counts)
    both = 0
    y0, x0 = max(first.y0, second.y0), max(first.x0, second.x0)
    y1 = min(first.window[0].stop, second.window[0].stop)
    x1 = min(first.window[1].stop, second.window[1].stop)
    if y0 < y1 and x0 < x1:
        one = first.labels[y0 - first.y0 : y1 - first.y0, x0 - first.x0 : x1 - first.x0]
        two = second.labels[y0 - second.y0 : y1 - second.y0, x0 - second.x0 : x1 - second.x0]
        both = int(np.count_nonzero((one > 0) & (two > 0)))
        hits = np.bincount(one[(one == two) & (one > 0)], minlength=len(hits))
    union = first.counts + second.counts - hits
    union[0] = area - both
    hits[0] = area - int(first.counts.sum() + second.counts.sum()) + both
    present = union > 0
    return float(np.mean(hits[present] / union[present])) if present.any() else float("nan")


@dataclass(frozen=True, eq=False)
class PeopleMatch:
    """Every predicted person with the ground truth of greatest mean class IoU, for AP^p, PCP and the scores' trust."""

    iou: NDArray[np.float64]  # (N,) mean class IoU, background included; -1 where there is no ground truth
    target: NDArray[np.int64]  # (N,) index of that ground truth; -1 where there is none
    shares: NDArray[np.float64]  # (N, 9) share of its classes whose IoU exceeds each threshold
    class_iou: NDArray[np.float64]  # (N, C) IoU per class with it; nan where neither has the class


def match_people(table: TruthTable, people: Sequence[CroppedPerson]) -> PeopleMatch:
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


def published_nms(
    people: Sequence[CroppedPerson],
    quality: NDArray[np.float64],
    area: int,
    threshold: float,
    protocol: Protocol,
    pair_iou: Callable[[int, int], float] | None = None,
) -> NDArray[np.int64]:
    """Parsing NMS of the evaluation: drop a person whose mean class IoU with a better one is `threshold` or more.

    Args:
        people: N predictions.
        quality: (N,) fused scores; NaN ranks last.
        area: pixels of the image.
        threshold: 1 or more switches NMS off.
        pair_iou: mean class IoU of two people by their indices; None: computed here.
    Returns:
        (K,) indices of the survivors by descending quality, or all in their own order where NMS is off.
    """
    if threshold >= 1:
        return np.arange(len(people))
    if pair_iou is None:

        def pair_iou(first: int, second: int) -> float:
            return pair_mean_iou(people[first], people[second], area)

    order = np.argsort(-quality, kind="stable")
    kept = np.ones(len(order), bool)
    for position in range(len(order) - 1):
        if not kept[position]:
            continue
        rest = position + 1 + np.flatnonzero(kept[position + 1 :])
        for rank, candidate in enumerate(rest):
            if pair_iou(int(order[position]), int(order[candidate])) >= threshold:
                # the published code ignores that `rest` has gaps once a person was dropped
                kept[position + 1 + rank if protocol.shifted_nms else candidate] = False
    return order[kept]
