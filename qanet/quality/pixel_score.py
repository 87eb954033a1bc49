"""Pixel score: the reference, and the only definition of what it means.

Source: method, section Pixel score. Every faster form (graph, C++, CUDA) is tested against this one.

A crop's quarter-resolution logits are upsampled x4 (bilinear, align_corners False) and softmaxed at crop
resolution; each image pixel then samples those probabilities bilinearly at its centre, zero outside the crop.
Its label is the greatest, m the probability of it. A person's pixel score is the mean of m over the pixels
with m >= T, background included; part c's is the same over the pixels labelled c. Pixels with m < 1/C are
background in the label map.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qanet.errors import QanetError
from qanet.quality.arguments import check_arguments
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

PIXEL_SCORE_THRESHOLD = 0.2  # T of every published configuration
_BAND_PIXELS = 24_576  # image pixels a band: the temporaries of one class stay in the second-level cache


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
        flipped_logits: (N, C, h, w) of the mirrored crops; the two views' probabilities are averaged.
        flip_pairs: classes that swap under a mirror.
    Raises:
        QanetError: an argument that does not fit.
    """
    maps, where = check_arguments(logits, boxes, image_size, threshold)
    views = [maps]
    if flipped_logits is not None:
        mirrored, _ = check_arguments(flipped_logits, boxes, image_size, threshold, "flipped_logits")
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


def _softmax(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Softmax over axis 0, in place; the maximum is subtracted, so that no exponential overflows."""
    with np.errstate(over="ignore"):  # huge logits differ by infinity, whose exponential is 0, as it should be
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
    columns = paste_taps(x0, x1, left, right - left, map_w * UPSAMPLE)
    crop_columns = upsample_taps(np.arange(map_w * UPSAMPLE), map_w)
    band = max(1, _BAND_PIXELS // (x1 - x0))
    for start in range(y0, y1, band):
        stop = min(start + band, y1)
        rows = paste_taps(start, stop, top, bottom - top, map_h * UPSAMPLE)
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
    views: list[NDArray[np.float32]], rows: Taps, columns: Taps, crop_columns: Taps
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Greatest probability and its class for a band of image rows; (r, w) float32 and uint8."""
    first = int(rows.low.min())
    used = np.arange(first, int(rows.high.max()) + 1)
    shifted = Taps(rows.low - first, rows.high - first, rows.low_weight, rows.high_weight)
    total: NDArray[np.float32] | None = None
    for maps in views:
        crop = _softmax(
            sample_columns(sample_rows(maps, upsample_taps(used, maps.shape[1])), crop_columns)
        )  # (C, b, 4w)
        sampled = sample_columns(sample_rows(crop, shifted), columns)  # (C, r, w)
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
