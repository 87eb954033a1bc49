"""Pixel score and quality-aware fusion: the reference, and the only definition of what they mean.

Sources: method, sections Pixel score and QAM. Every faster form (graph, C++, CUDA) is tested against this one.

A crop's quarter-resolution logits are upsampled x4 (bilinear, align_corners False) and softmaxed at crop
resolution; each image pixel then samples those probabilities bilinearly at its centre, zero outside the crop.
Its label is the greatest, m the probability of it. A person's pixel score is the mean of m over the pixels
with m >= T, background included; part c's is the same over the pixels labelled c. Pixels with m < 1/C are
background in the label map.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qanet.errors import QanetError

PIXEL_SCORE_THRESHOLD = 0.2  # T of every published configuration
QAM_WEIGHTS = (1.0, 0.5, 3.0)  # exponents of box, IoU and pixel score of every published QANet configuration
UPSAMPLE = 4  # the logits' stride
_BAND_PIXELS = 24_576  # image pixels a band: the temporaries of one class stay in the second-level cache


def fuse_quality(
    box_scores: ArrayLike, iou_scores: ArrayLike, pixel_scores: ArrayLike,
    weights: tuple[float, float, float] = QAM_WEIGHTS,
) -> NDArray[np.float32]:  # fmt: skip
    """Q = (box^a * iou^b * pixel^g)^(1 / (a + b + g)), broadcast over the arguments' shapes; float32.

    Nothing is clamped: a negative base under a fractional exponent is nan, and x^0 is 1 for every x, as in the
    official code. Clamp an IoU head's raw output with `clamp_iou` first.

    Raises:
        QanetError: weights that do not sum to something above zero.
    """
    if len(weights) != 3 or not sum(weights) > 0:
        raise QanetError("bad QAM weights", expected="three numbers with a positive sum", got=weights)
    scores = (box_scores, iou_scores, pixel_scores)
    with np.errstate(invalid="ignore"):
        box, iou, pixel = (np.asarray(s, np.float32) ** np.float32(w) for s, w in zip(scores, weights))
        return np.asarray((box * iou * pixel) ** np.float32(1 / sum(weights)), np.float32)


def clamp_iou(iou_scores: ArrayLike) -> NDArray[np.float32]:
    """The IoU head's unbounded output brought into [0, 1]; nan becomes 0. Any shape, float32."""
    return np.clip(np.nan_to_num(np.asarray(iou_scores, np.float32), nan=0.0), 0.0, 1.0)


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


def check_arguments(
    logits: ArrayLike, boxes: ArrayLike, image_size: tuple[int, int], threshold: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Validate the arguments every form of the pixel score takes; returns contiguous float32 logits and boxes.

    Raises:
        QanetError: naming the argument, with expected against got.
    """
    maps = np.asarray(logits)
    if maps.ndim != 4 or maps.dtype.kind != "f":
        raise QanetError("logits do not fit", expected="floats (N, C, h, w)", got=f"{maps.dtype} {maps.shape}")
    if not 2 <= maps.shape[1] <= 256:
        raise QanetError("logits have a bad number of classes", expected="2 to 256", got=maps.shape[1])
    if min(maps.shape[2:]) < 1:
        raise QanetError("logits have an empty map", expected="h and w of 1 or more", got=maps.shape[2:])
    try:
        where = np.asarray(boxes, np.float32)
    except (TypeError, ValueError) as error:
        raise QanetError("boxes are not numbers", expected=(len(maps), 4), got=boxes) from error
    if where.size == 0:
        where = where.reshape(-1, 4)
    if where.shape != (len(maps), 4):
        raise QanetError("boxes do not fit the logits", expected=(len(maps), 4), got=where.shape)
    if not np.isfinite(where).all() or (where[:, 2:] <= where[:, :2]).any():
        raise QanetError("a box is not finite or is empty", expected="finite x0 < x1, y0 < y1", got=where.tolist())
    if len(image_size) != 2 or min(image_size) < 1:
        raise QanetError("image_size does not fit", expected="(H, W) of 1 or more", got=image_size)
    if not 0 <= threshold < 1:
        raise QanetError("threshold out of range", expected="0 <= T < 1", got=threshold)
    return np.ascontiguousarray(maps, np.float32), where


def pixel_score(
    logits: ArrayLike, boxes: ArrayLike, image_size: tuple[int, int],
    threshold: float = PIXEL_SCORE_THRESHOLD, flipped_logits: ArrayLike | None = None,
    flip_pairs: Sequence[tuple[int, int]] = (),
) -> PixelScores:  # fmt: skip
    """Exact pixel scores in NumPy, limited to each person's region, with bounded memory.

    Args:
        logits: (N, C, h, w) float, at a quarter of the crop's resolution.
        boxes: (N, 4) xyxy crop boxes in continuous image pixels (grown already, `geometry.crop_boxes`).
        image_size: (H, W) pixels.
        threshold: T; pixels less certain take no part in a score.
        flipped_logits: (N, C, h, w) of the mirrored crops; the two views' probabilities are averaged.
        flip_pairs: classes that swap under a mirror.
    Raises:
        QanetError: an argument that does not fit.
    """
    maps, where = check_arguments(logits, boxes, image_size, threshold)
    views = [maps]
    if flipped_logits is not None:
        mirrored, _ = check_arguments(flipped_logits, boxes, image_size, threshold)
        if mirrored.shape != maps.shape:
            raise QanetError("flipped_logits do not fit", expected=maps.shape, got=mirrored.shape)
        views.append(unflip(mirrored, flip_pairs))
    rois = np.zeros((len(maps), 4), np.int32)
    labels = []
    scores = np.zeros((len(maps), maps.shape[1]), np.float32)  # column 0: the whole person
    for index, box in enumerate(where):
        rois[index] = region_of(box, maps.shape[2:], image_size)
        person = [view[index] for view in views]
        region, scores[index] = _score_person(person, box, rois[index], threshold)
        labels.append(region)
    return PixelScores(rois, labels, scores[:, 0], scores[:, 1:], (int(image_size[0]), int(image_size[1])))


def unflip(maps: NDArray[np.float32], flip_pairs: Sequence[tuple[int, int]]) -> NDArray[np.float32]:
    """Mirror (N, C, h, w) maps back and swap left with right classes."""
    order = np.arange(maps.shape[1])
    for left, right in flip_pairs:
        order[left], order[right] = right, left
    return np.ascontiguousarray(maps[:, order, :, ::-1])


def region_of(box: ArrayLike, map_hw: Sequence[int], image_size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Image pixels (x0, y0, x1, y1) that sample the crop at all: the box and half a crop pixel around it, clipped."""
    x0, y0, x1, y1 = (float(v) for v in np.asarray(box, np.float64))
    reach_x = (x1 - x0) / (map_hw[1] * UPSAMPLE) / 2
    reach_y = (y1 - y0) / (map_hw[0] * UPSAMPLE) / 2
    height, width = image_size

    def clip(value: float, limit: int) -> int:
        return int(min(max(value, 0), limit))

    left, top = clip(math.ceil(x0 - reach_x - 0.5), width), clip(math.ceil(y0 - reach_y - 0.5), height)
    right = clip(math.floor(x1 + reach_x - 0.5) + 1, width)
    bottom = clip(math.floor(y1 + reach_y - 0.5) + 1, height)
    return left, top, max(right, left), max(bottom, top)


@dataclass(frozen=True)
class _Taps:
    """Two-tap linear interpolation along one axis: value = low_weight * a[low] + high_weight * a[high]."""

    low: NDArray[np.intp]
    high: NDArray[np.intp]
    low_weight: NDArray[np.float32]
    high_weight: NDArray[np.float32]


def _paste_taps(start: int, stop: int, origin: float, extent: float, size: int) -> _Taps:
    """Where image pixels start..stop sample a crop axis of `size` pixels laid over [origin, origin + extent)."""
    position = (np.arange(start, stop, dtype=np.float64) + 0.5 - origin) * (size / extent) - 0.5
    low = np.floor(position)
    fraction = position - low
    inside_low = (low >= 0) & (low < size)
    inside_high = (low + 1 >= 0) & (low + 1 < size)
    index = np.clip(low, -1, size - 1).astype(np.intp)
    return _Taps(
        np.maximum(index, 0), np.minimum(index + 1, size - 1),
        np.where(inside_low, 1 - fraction, 0).astype(np.float32), np.where(inside_high, fraction, 0).astype(np.float32),
    )  # fmt: skip


def _upsample_taps(rows: NDArray[np.intp], size: int) -> _Taps:
    """Bilinear x4 with align_corners False: crop pixels `rows` from a map axis of `size` pixels."""
    position = np.maximum((rows + 0.5) / UPSAMPLE - 0.5, 0)
    low = np.minimum(np.floor(position).astype(np.intp), size - 1)
    fraction = (position - low).astype(np.float32)
    return _Taps(low, np.minimum(low + 1, size - 1), 1 - fraction, fraction)


def _rows(maps: NDArray[np.float32], taps: _Taps) -> NDArray[np.float32]:
    """Interpolate along axis 1 of (C, h, w)."""
    low = maps[:, taps.low] * taps.low_weight[:, None]
    low += maps[:, taps.high] * taps.high_weight[:, None]
    return low


def _columns(maps: NDArray[np.float32], taps: _Taps) -> NDArray[np.float32]:
    """Interpolate along axis 2 of (C, h, w)."""
    low = np.take(maps, taps.low, axis=2) * taps.low_weight
    low += np.take(maps, taps.high, axis=2) * taps.high_weight
    return low


def _softmax(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Softmax over axis 0, in place; the maximum is subtracted, so that no exponential overflows."""
    maps -= maps.max(0)
    np.exp(maps, out=maps)
    maps /= maps.sum(0)
    return maps


def _score_person(
    views: list[NDArray[np.float32]], box: NDArray[np.float32], roi: NDArray[np.int32], threshold: float
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Labels (h, w) uint8 of one region and its C scores (person first, then the parts)."""
    num_classes, map_h, map_w = views[0].shape
    x0, y0, x1, y1 = (int(v) for v in roi)
    left, top, right, bottom = (float(v) for v in box.astype(np.float64))
    labels = np.zeros((y1 - y0, x1 - x0), np.uint8)
    sums = np.zeros(num_classes, np.float64)
    counts = np.zeros(num_classes, np.float64)
    if labels.size == 0:
        return labels, np.zeros(num_classes, np.float32)
    columns = _paste_taps(x0, x1, left, right - left, map_w * UPSAMPLE)
    crop_columns = _upsample_taps(np.arange(map_w * UPSAMPLE), map_w)
    band = max(1, _BAND_PIXELS // (x1 - x0))
    for start in range(y0, y1, band):
        stop = min(start + band, y1)
        rows = _paste_taps(start, stop, top, bottom - top, map_h * UPSAMPLE)
        confidence, winner = _band(views, rows, columns, crop_columns)
        labels[start - y0 : stop - y0] = np.where(confidence >= np.float32(1 / num_classes), winner, 0)
        certain = confidence >= np.float32(threshold)
        # The scores follow the argmax itself, not the label map: with T < 1/C (two classes, say) a pixel can be
        # background in the map and still count for its class.
        values, ids = confidence[certain], winner[certain]
        sums += np.bincount(ids, weights=values, minlength=num_classes)
        counts += np.bincount(ids, minlength=num_classes)
    scores = sums / np.maximum(counts, 1e-6)
    scores[0] = sums.sum() / max(counts.sum(), 1e-6)
    return labels, scores.astype(np.float32)


def _band(
    views: list[NDArray[np.float32]], rows: _Taps, columns: _Taps, crop_columns: _Taps
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Greatest probability and its class for a band of image rows; (r, w) float32 and uint8."""
    first = int(rows.low.min())
    used = np.arange(first, int(rows.high.max()) + 1)
    shifted = _Taps(rows.low - first, rows.high - first, rows.low_weight, rows.high_weight)
    total: NDArray[np.float32] | None = None
    for maps in views:
        crop = _softmax(_columns(_rows(maps, _upsample_taps(used, maps.shape[1])), crop_columns))  # (C, b, 4w)
        sampled = _columns(_rows(crop, shifted), columns)  # (C, r, w)
        total = sampled if total is None else total + sampled
    assert total is not None
    if len(views) > 1:
        total /= np.float32(len(views))
    best = total[0].copy()
    winner = np.zeros(best.shape, np.uint8)
    for index in range(1, len(total)):
        better = total[index] > best
        np.copyto(best, total[index], where=better)
        winner[better] = index
    return best, winner
