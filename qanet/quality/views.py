"""Several looks at the same people, averaged: mirrored crops and boxes of other sizes (test-time augmentation).

Source: method, sections Pixel score and Losses and recipe (Test). Every view's probabilities are pasted to the image
by its own box, mirrored ones turned back with left and right classes swapped, and the mean over all views is scored
as `qanet.quality.pixel_score` scores one. Where a view's box does not reach it counts as zero, as in the published
code, so that the rim which only the largest boxes see counts for little.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qanet.errors import QanetError
from qanet.quality.arguments import check_arguments, check_image
from qanet.quality.pixel_score import PIXEL_SCORE_THRESHOLD, PixelScores
from qanet.quality.sampling import (
    UPSAMPLE,
    Taps,
    paste_taps,
    region_of,
    sample_columns,
    sample_rows,
    unflip,
    upsample_taps,
)

MULTI_SCALE = (1.0, 0.9, 1.1, 1.2, 1.3)  # factors of the crop box: itself and the published ones
_SCALE_RANGE = (0.25, 4.0)
_BAND_PIXELS = 24_576  # image pixels a band, as many as the temporaries of one class may take in the cache


@dataclass(frozen=True, eq=False)
class View:
    """One look at N people.

    Attributes:
        logits: (N, C, h, w) floats at a quarter of the crops' resolution.
        boxes: (N, 4) xyxy crop boxes in continuous image pixels.
        mirrored: whether the crops were mirrored.
    """

    logits: NDArray[np.floating]
    boxes: NDArray[np.floating]
    mirrored: bool = False


@dataclass(frozen=True, eq=False)
class ViewScores:
    """Labels of N people at image resolution, and their pixel scores at V thresholds."""

    rois: NDArray[np.int32]  # (N, 4) x0 y0 x1 y1: what the largest box of each person reaches
    labels: list[NDArray[np.uint8]]  # N arrays (y1 - y0, x1 - x0); no threshold changes them
    pixel_scores: NDArray[np.float32]  # (N, V)
    part_scores: NDArray[np.float32]  # (N, V, C - 1)


def average_views(
    views: Sequence[View],
    image_size: tuple[int, int],
    threshold: float = PIXEL_SCORE_THRESHOLD,
    flip_pairs: Sequence[tuple[int, int]] = (),
) -> PixelScores:
    """Labels and pixel scores of the mean of the views' probabilities.

    Args:
        views: one or more looks at the same N people, of any boxes.
        image_size: (H, W) pixels.
        threshold: T; pixels less certain take no part in a score.
        flip_pairs: classes that swap under a mirror.
    Raises:
        QanetError: no view, or an argument that does not fit.
    """
    scored = score_views(views, image_size, (threshold,), flip_pairs)
    size = (int(image_size[0]), int(image_size[1]))
    return PixelScores(scored.rois, scored.labels, scored.pixel_scores[:, 0], scored.part_scores[:, 0], size)


def score_views(
    views: Sequence[View],
    image_size: tuple[int, int],
    thresholds: Sequence[float],
    flip_pairs: Sequence[tuple[int, int]] = (),
) -> ViewScores:
    """`average_views` at many thresholds in one pass over the pixels; arguments and errors likewise.

    Args:
        thresholds: V thresholds in [0, 1), in any order.
    """
    looks = _checked(views, image_size, thresholds, flip_pairs)
    count, classes = looks[0].logits.shape[:2]
    rois = np.zeros((count, 4), np.int32)
    labels = []
    scores = np.zeros((count, len(thresholds), classes), np.float32)  # class 0: the whole person
    for index in range(count):
        person = [(look.logits[index], look.boxes[index]) for look in looks]
        reach = np.array([region_of(box, maps.shape[1:], image_size) for maps, box in person])
        rois[index] = [*reach[:, :2].min(0), *reach[:, 2:].max(0)]
        region, scores[index] = _score_person(person, rois[index], np.asarray(thresholds, np.float32))
        labels.append(region)
    return ViewScores(rois, labels, scores[..., 0], scores[..., 1:])


def check_scales(scales: Sequence[float]) -> tuple[float, ...]:
    """Factors of the crop box; QanetError for none, a repeated one or what is far from 1."""
    try:
        factors = tuple(float(scale) for scale in scales)
    except (TypeError, ValueError) as error:
        raise QanetError("scales are not numbers", expected=f"like {MULTI_SCALE}", got=repr(scales)) from error
    low, high = _SCALE_RANGE
    wrong = [scale for scale in factors if not (math.isfinite(scale) and low <= scale <= high)]
    if wrong or not factors or len(set(factors)) < len(factors):
        raise QanetError(
            "scales do not fit",
            expected=f"one or more different factors of the box, each {low:g}..{high:g}",
            got=wrong[0] if wrong else factors,
        )
    return factors


def _checked(
    views: Sequence[View],
    image_size: tuple[int, int],
    thresholds: Sequence[float],
    flip_pairs: Sequence[tuple[int, int]],
) -> list[View]:
    """The views in float32 and turned back; QanetError for what does not fit."""
    if not views:
        raise QanetError("no view to average", expected="one or more", got=0)
    if not len(thresholds):
        raise QanetError("no threshold", expected="one or more in [0, 1)", got=0)
    for threshold in thresholds:
        check_image(image_size, threshold)
    looks: list[View] = []
    for view in views:
        maps, boxes = check_arguments(view.logits, view.boxes, image_size, thresholds[0])
        if looks and maps.shape[:2] != looks[0].logits.shape[:2]:
            raise QanetError(
                "views show other people or classes", expected=looks[0].logits.shape[:2], got=maps.shape[:2]
            )
        looks.append(View(unflip(maps, flip_pairs) if view.mirrored else maps, boxes))
    return looks


def _score_person(
    person: Sequence[tuple[NDArray, NDArray]], roi: NDArray[np.int32], thresholds: NDArray[np.float32]
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Labels (h, w) uint8 of one region and its (V, C) scores (class 0: the person, then the parts)."""
    num_classes = len(person[0][0])
    x0, y0, x1, y1 = (int(v) for v in roi)
    labels = np.zeros((y1 - y0, x1 - x0), np.uint8)
    order = np.argsort(thresholds)
    steps = thresholds[order]
    sums, counts = np.zeros((2, len(steps) + 1, num_classes))
    band = max(1, _BAND_PIXELS // max(x1 - x0, 1))
    for start in range(y0, y1 if x1 > x0 else y0, band):
        stop = min(start + band, y1)
        total = np.zeros((num_classes, stop - start, x1 - x0), np.float32)
        for maps, box in person:
            total += _paste(maps, box, (start, stop), (x0, x1))
        total /= np.float32(len(person))
        winner = total.argmax(0)
        confidence = np.take_along_axis(total, winner[None], 0)[0]
        labels[start - y0 : stop - y0] = np.where(confidence >= np.float32(1 / num_classes), winner, 0)
        # how many of the ascending thresholds a pixel reaches; the scores follow the argmax itself, not the label map
        reached = np.searchsorted(steps, confidence.ravel(), side="right")
        codes = reached * num_classes + winner.ravel()
        sums += np.bincount(codes, confidence.ravel(), sums.size).reshape(sums.shape)
        counts += np.bincount(codes, minlength=sums.size).reshape(sums.shape)
    # a pixel that reaches k thresholds counts for each of the first k
    sums, counts = (np.cumsum(table[:0:-1], axis=0)[::-1] for table in (sums, counts))
    scores = np.empty((len(steps), num_classes))
    scores[order] = sums / np.maximum(counts, 1e-6)
    scores[order, 0] = sums.sum(1) / np.maximum(counts.sum(1), 1e-6)
    return labels, scores


def _paste(
    maps: NDArray[np.float32], box: NDArray[np.float32], rows: tuple[int, int], columns: tuple[int, int]
) -> NDArray[np.float32]:
    """Probabilities of one view over a window of the image: logits (C, h, w) -> (C, r, c), zero outside the box."""
    _, map_h, map_w = maps.shape
    left, top, right, bottom = (float(v) for v in box.astype(np.float64))
    down = paste_taps(*rows, top, bottom - top, map_h * UPSAMPLE)
    across = paste_taps(*columns, left, right - left, map_w * UPSAMPLE)
    first = int(down.low.min())
    used = np.arange(first, int(down.high.max()) + 1)
    crop = sample_columns(
        sample_rows(maps, upsample_taps(used, map_h)), upsample_taps(np.arange(map_w * UPSAMPLE), map_w)
    )
    with np.errstate(over="ignore"):  # huge logits differ by infinity, whose exponential is 0, as it should be
        crop -= crop.max(0)
    np.exp(crop, out=crop)
    crop /= crop.sum(0)
    shifted = Taps(down.low - first, down.high - first, down.low_weight, down.high_weight)
    return sample_columns(sample_rows(crop, shifted), across)
