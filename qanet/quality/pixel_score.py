"""Pixel score: the reference, and the only definition of what it means.

Source: method, sections Pixel score and Losses and recipe (Test). Every faster form (graph, C++, CUDA) is tested
against this one.

A crop's quarter-resolution logits are upsampled x4 (bilinear, align_corners False) and softmaxed at crop
resolution; each image pixel then samples those probabilities bilinearly at its centre, zero outside the crop.
Its label is the greatest, m the probability of it. A person's pixel score is the mean of m over the pixels
with m >= T, background included; part c's is the same over the pixels labelled c. Pixels with m < 1/C are
background in the label map.

Several looks at the same people (test-time augmentation: mirrored crops, boxes of other sizes) are averaged: each
look's probabilities are pasted by its own box, mirrored ones turned back with left and right classes swapped, and the
mean over all looks is scored. Where a look's box does not reach it counts as zero, as in the published code, so that
the rim which only the largest boxes see counts for little.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qanet.errors import QanetError
from qanet.quality.sampling import (
    UPSAMPLE,
    Taps,
    check_arguments,
    check_image,
    paste_taps,
    region_of,
    sample_columns,
    sample_rows,
    unflip,
    upsample_taps,
)

PIXEL_SCORE_THRESHOLD = 0.2  # T of every published configuration
MULTI_SCALE = (1.0, 0.9, 1.1, 1.2, 1.3)  # factors of the crop box: itself and the published ones
_SCALE_RANGE = (0.25, 4.0)
_BAND_PIXELS = 24_576  # image pixels per band: the temporaries of one class stay in the second-level cache


@dataclass(frozen=True)
class PixelScores:
    """Labels at image resolution and the statistics of their confidence, for N persons of one image."""

    rois: NDArray[np.int32]  # (N, 4) x0 y0 x1 y1, whole image pixels, exclusive at the end
    labels: list[NDArray[np.uint8]]  # N arrays (y1 - y0, x1 - x0)
    pixel_scores: NDArray[np.float32]  # (N,)
    part_scores: NDArray[np.float32]  # (N, C - 1); 0 for a part without a pixel
    image_size: tuple[int, int]  # (H, W) pixels

    def full(self, index: int) -> NDArray[np.uint8]:
        """Person `index`'s labels on the whole image, (H, W) uint8."""
        canvas = np.zeros(self.image_size, np.uint8)
        x0, y0, x1, y1 = self.rois[index]
        canvas[y0:y1, x0:x1] = self.labels[index]
        return canvas


@dataclass(frozen=True, eq=False)
class Look:
    """One look at N people.

    Attributes:
        logits: (N, C, h, w) floats at a quarter of the crops' resolution.
        boxes: (N, 4) xyxy crop boxes in continuous image pixels.
        mirrored: whether the crops were mirrored.

    >>> look = Look(np.zeros((1, 3, 8, 6), np.float32), np.array([[8, 8, 32, 40]]), mirrored=True)
    """

    logits: NDArray[np.floating]
    boxes: NDArray[np.floating]
    mirrored: bool = False


@dataclass(frozen=True, eq=False)
class LookScores:
    """Labels of N people at image resolution, and their pixel scores at V thresholds."""

    rois: NDArray[np.int32]  # (N, 4) x0 y0 x1 y1: what the largest box of each person reaches
    labels: list[NDArray[np.uint8]]  # N arrays (y1 - y0, x1 - x0); no threshold changes them
    pixel_scores: NDArray[np.float32]  # (N, V)
    part_scores: NDArray[np.float32]  # (N, V, C - 1)


def pixel_score(
    logits: ArrayLike,
    boxes: ArrayLike,
    image_size: tuple[int, int],
    threshold: float = PIXEL_SCORE_THRESHOLD,
    flipped_logits: ArrayLike | None = None,
    flip_pairs: Sequence[tuple[int, int]] = (),
) -> PixelScores:
    """Exact pixel scores in NumPy, limited to each person's region, with bounded memory.

    Args:
        logits: (N, C, h, w) finite floats, at a quarter of the crop's resolution.
        boxes: (N, 4) xyxy crop boxes in continuous image pixels (grown already, `geometry.crop_boxes`).
        image_size: (H, W) pixels.
        threshold: T; pixels less certain take no part in a score.
        flipped_logits: (N, C, h, w) of the mirrored crops; the two looks' probabilities are averaged.
        flip_pairs: classes that swap under a mirror.
    Raises:
        QanetError: an argument that does not fit.

    >>> logits = np.zeros((1, 3, 8, 6), np.float32)
    >>> logits[:, 2] = 5  # class 2 all over the crop
    >>> scored = pixel_score(logits, [[8, 8, 32, 40]], image_size=(48, 40))
    >>> np.unique(scored.full(0)).tolist(), scored.part_scores.shape
    ([0, 2], (1, 2))
    """
    maps, where = check_arguments(logits, boxes, image_size, threshold)
    looks = [Look(maps, where)]
    if flipped_logits is not None:
        mirrored, _ = check_arguments(flipped_logits, boxes, image_size, threshold, "flipped_logits")
        if mirrored.shape != maps.shape:
            raise QanetError("flipped_logits do not fit", expected=maps.shape, got=mirrored.shape)
        looks.append(Look(unflip(mirrored, flip_pairs), where))
    return _at_one_threshold(_score(looks, image_size, (threshold,)), image_size)


def average_looks(
    looks: Sequence[Look],
    image_size: tuple[int, int],
    threshold: float = PIXEL_SCORE_THRESHOLD,
    flip_pairs: Sequence[tuple[int, int]] = (),
) -> PixelScores:
    """Labels and pixel scores of the mean of the looks' probabilities.

    Args:
        looks: one or more looks at the same N people, of any boxes.
        image_size: (H, W) pixels.
        threshold: T; pixels less certain take no part in a score.
        flip_pairs: classes that swap under a mirror.
    Raises:
        QanetError: no look, or an argument that does not fit.

    >>> logits = np.zeros((1, 3, 8, 6), np.float32)
    >>> logits[:, 2] = 5
    >>> looks = [Look(logits, np.array([[8, 8, 32, 40]])), Look(logits, np.array([[4, 4, 36, 44]]), mirrored=True)]
    >>> average_looks(looks, image_size=(48, 40)).rois.tolist()  # what the larger box reaches
    [[3, 3, 37, 45]]
    """
    scored = score_looks(looks, image_size, (threshold,), flip_pairs)
    return _at_one_threshold(scored, image_size)


def score_looks(
    looks: Sequence[Look],
    image_size: tuple[int, int],
    thresholds: Sequence[float],
    flip_pairs: Sequence[tuple[int, int]] = (),
) -> LookScores:
    """`average_looks` at many thresholds in one pass over the pixels; arguments and errors likewise.

    Args:
        thresholds: V thresholds in [0, 1), in any order.

    >>> look = Look(np.zeros((1, 4, 8, 6), np.float32), np.array([[0, 0, 24, 32]]))  # 0.25 for each class
    >>> score_looks([look], (32, 24), thresholds=(0.2, 0.3)).pixel_scores.tolist()
    [[0.25, 0.0]]
    """
    return _score(_checked(looks, image_size, thresholds, flip_pairs), image_size, thresholds)


def check_scales(scales: Sequence[float]) -> tuple[float, ...]:
    """Factors of the crop box; QanetError for none, a repeated one or what is far from 1.

    >>> check_scales([1, 1.2])
    (1.0, 1.2)
    """
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
    looks: Sequence[Look],
    image_size: tuple[int, int],
    thresholds: Sequence[float],
    flip_pairs: Sequence[tuple[int, int]],
) -> list[Look]:
    """The looks in float32 and turned back; QanetError for what does not fit."""
    if not looks:
        raise QanetError("no look to average", expected="one or more", got=0)
    if not len(thresholds):
        raise QanetError("no threshold", expected="one or more in [0, 1)", got=0)
    for threshold in thresholds:
        check_image(image_size, threshold)
    checked: list[Look] = []
    for look in looks:
        maps, boxes = check_arguments(look.logits, look.boxes, image_size, thresholds[0])
        if checked and maps.shape[:2] != checked[0].logits.shape[:2]:
            expected = checked[0].logits.shape[:2]
            raise QanetError("looks show other people or classes", expected=expected, got=maps.shape[:2])
        checked.append(Look(unflip(maps, flip_pairs) if look.mirrored else maps, boxes))
    return checked


def _at_one_threshold(scored: LookScores, image_size: tuple[int, int]) -> PixelScores:
    size = (int(image_size[0]), int(image_size[1]))
    return PixelScores(scored.rois, scored.labels, scored.pixel_scores[:, 0], scored.part_scores[:, 0], size)


def _score(looks: Sequence[Look], image_size: tuple[int, int], thresholds: Sequence[float]) -> LookScores:
    """Checked looks, turned back already, person by person."""
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
    return LookScores(rois, labels, scores[..., 0], scores[..., 1:])


def _score_person(
    person: Sequence[tuple[NDArray, NDArray]], roi: NDArray[np.int32], thresholds: NDArray[np.float32]
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Labels (h, w) uint8 of one region and its (V, C) scores (class 0: the person, then the parts)."""
    num_classes = len(person[0][0])
    x0, y0, x1, y1 = (int(v) for v in roi)
    labels = np.zeros((y1 - y0, x1 - x0), np.uint8)
    scores = np.zeros((len(thresholds), num_classes))
    if labels.size == 0:
        return labels, scores
    order = np.argsort(thresholds)
    steps = thresholds[order]
    sums, counts = np.zeros((2, len(steps), num_classes))
    across = [(paste_taps(x0, x1, *_along(box, maps, 0)), _whole(maps.shape[2])) for maps, box in person]
    band = max(1, _BAND_PIXELS // (x1 - x0))
    for start in range(y0, y1, band):
        stop = min(start + band, y1)
        confidence, winner = _band(person, across, start, stop)
        labels[start - y0 : stop - y0] = np.where(confidence >= np.float32(1 / num_classes), winner, 0)
        certain = confidence >= steps[0]
        # The scores follow the argmax itself, not the label map: with T < 1/C (two classes, say) a pixel can be
        # background in the map and still count for its class.
        values, codes = confidence[certain], winner[certain]
        if len(steps) > 1:  # the highest of the ascending thresholds that a pixel reaches
            codes = (np.searchsorted(steps, values, side="right") - 1) * num_classes + codes
        sums += np.bincount(codes, values, sums.size).reshape(sums.shape)
        counts += np.bincount(codes, minlength=sums.size).reshape(sums.shape)
    # a pixel that reaches a threshold counts for all lower ones as well
    sums, counts = (np.cumsum(table[::-1], axis=0)[::-1] for table in (sums, counts))
    scores[order] = sums / np.maximum(counts, 1e-6)
    scores[order, 0] = sums.sum(1) / np.maximum(counts.sum(1), 1e-6)
    return labels, scores


def _along(box: NDArray[np.float32], maps: NDArray[np.float32], axis: int) -> tuple[float, float, int]:
    """Origin and extent of a crop in the image along x (0) or y (1), and its pixels."""
    low, high = float(box[axis]), float(box[axis + 2])
    return low, high - low, maps.shape[2 - axis] * UPSAMPLE


def _whole(size: int) -> Taps:
    """The upsampling of a whole map axis."""
    return upsample_taps(np.arange(size * UPSAMPLE), size)


def _band(
    person: Sequence[tuple[NDArray, NDArray]], across: Sequence[tuple[Taps, Taps]], start: int, stop: int
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Greatest mean probability and its class for the image rows start..stop; (r, w) float32 and uint8.

    Args:
        across: for each look, where image columns sample the crop, and where crop columns sample the map.
    """
    total: NDArray[np.float32] | None = None
    for (maps, box), (columns, crop_columns) in zip(person, across):
        rows = paste_taps(start, stop, *_along(box, maps, 1))
        first = int(rows.low.min())
        used = np.arange(first, int(rows.high.max()) + 1)
        crop = _softmax(sample_columns(sample_rows(maps, upsample_taps(used, maps.shape[1])), crop_columns))
        shifted = Taps(rows.low - first, rows.high - first, rows.low_weight, rows.high_weight)
        sampled = sample_columns(sample_rows(crop, shifted), columns)  # (C, b, 4w) -> (C, r, w)
        total = sampled if total is None else total + sampled
    assert total is not None
    if len(person) > 1:
        total /= np.float32(len(person))
    best = total[0].copy()
    winner = np.zeros(best.shape, np.uint8)
    for index in range(1, len(total)):
        better = total[index] > best
        np.copyto(best, total[index], where=better)
        winner[better] = index
    return best, winner


def _softmax(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Softmax over axis 0, in place; the maximum is subtracted, so that no exponential overflows."""
    with np.errstate(over="ignore"):  # huge logits differ by infinity, whose exponential is 0, as it should be
        maps -= maps.max(0)
    np.exp(maps, out=maps)
    maps /= maps.sum(0)
    return maps
