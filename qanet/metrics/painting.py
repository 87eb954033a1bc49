"""From people to maps: order of painting, the semantic map, parsing NMS, the instance map and its regions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qanet.metrics.overlap import Person, pair_mean_iou
from qanet.metrics.protocol import Protocol


def ascending(scores: NDArray[np.float64], protocol: Protocol) -> NDArray[np.int64]:
    """(N,) indices from the lowest score to the highest; NaN on top (official) or below all (strict)."""
    if not protocol.nan_first:
        scores = np.where(np.isnan(scores), -np.inf, scores)
    return np.argsort(scores, kind="stable")


def paint_semantic(
    people: Sequence[Person], box_scores: NDArray[np.float64], hw: tuple[int, int], threshold: float, protocol: Protocol
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


def parsing_nms(
    people: Sequence[Person],
    quality: NDArray[np.float64],
    area: int,
    threshold: float,
    protocol: Protocol,
    pair_iou: Callable[[int, int], float] | None = None,
) -> NDArray[np.int64]:
    """Drop a person whose mean class IoU with a better one is `threshold` or more; 1 or more switches NMS off.

    Args:
        people: N predictions.
        quality: (N,) fused scores; NaN ranks last.
        area: pixels of the image.
        pair_iou: mean class IoU of two people by their indices, where it is known; None counts it.
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
                # the published code forgets that `rest` has gaps once somebody was dropped
                kept[position + 1 + rank if protocol.shifted_nms else candidate] = False
    return order[kept]


@dataclass(frozen=True, eq=False)
class Painted:
    """The instance map of an image and its regions: the visible pixels of one class of one person."""

    instances: NDArray[np.int64]  # (K,) indices of the people, in the order of their ids 1..K in instance_map
    instance_map: NDArray[np.int32]  # (H, W) ids, 0 = nobody; ids of people wholly covered do not occur
    regions: NDArray[np.int32]  # (H, W) region ids, 0 = none
    region_instance: NDArray[np.int64]  # (R,) index of the person of the regions 1..R
    region_class: NDArray[np.int64]  # (R,) class of the regions 1..R


def paint_instances(
    people: Sequence[Person], order: NDArray[np.int64], hw: tuple[int, int], num_classes: int, protocol: Protocol
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
