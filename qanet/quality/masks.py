"""Pixel score of instance masks: how much of a mask is certain, and the mask itself. Source: method, Other tasks.

A crop's one-class logits are upsampled x4, passed through the sigmoid and pasted as a parsing's probabilities are
(`qanet.quality.pixel_score`). With p the pasted probability, the mask is p >= 0.5 and its score
area(p >= 1 - t) / max(area(p >= t), 1e-6): near 1 where the border is sharp, 0 where nothing is certain.
`probability_score` does the same from maps that are probabilities already, as a Mask R-CNN gives them for a box.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qanet.errors import QanetError
from qanet.quality.sampling import (
    UPSAMPLE,
    check_image,
    check_instance_boxes,
    check_maps,
    paste_taps,
    region_of,
    sample_columns,
    sample_rows,
    unflip,
    upsample_taps,
)

MASK_THRESHOLD = 0.25  # t of every published configuration
_BINARY = np.float32(0.5)
_BAND_PIXELS = 98_304  # image pixels per band: the temporaries stay in the second-level cache


@dataclass(frozen=True)
class MaskScores:
    """Masks at image resolution and how certain each is, for N instances of one image."""

    rois: NDArray[np.int32]  # (N, 4) x0 y0 x1 y1, whole image pixels, exclusive at the end
    masks: list[NDArray[np.uint8]]  # N arrays (y1 - y0, x1 - x0) of 0 and 1
    pixel_scores: NDArray[np.float32]  # (N,)
    image_size: tuple[int, int]  # (H, W) pixels

    def full(self, index: int) -> NDArray[np.uint8]:
        """Instance `index`'s mask on the whole image, (H, W) uint8 of 0 and 1."""
        canvas = np.zeros(self.image_size, np.uint8)
        x0, y0, x1, y1 = self.rois[index]
        canvas[y0:y1, x0:x1] = self.masks[index]
        return canvas


def mask_score(
    logits: ArrayLike,
    boxes: ArrayLike,
    image_size: tuple[int, int],
    threshold: float = MASK_THRESHOLD,
    flipped_logits: ArrayLike | None = None,
) -> MaskScores:
    """Exact masks and scores in NumPy, limited to each instance's region, with bounded memory.

    Args:
        logits: (N, 1, h, w) finite floats, at a quarter of the crop's resolution.
        boxes: (N, 4) xyxy crop boxes in continuous image pixels.
        image_size: (H, W) pixels.
        threshold: t in (0, 0.5]; the certain pixels have p >= 1 - t, the possible ones p >= t.
        flipped_logits: (N, 1, h, w) of the mirrored crops; the two looks' probabilities are averaged.
    Raises:
        QanetError: an argument that does not fit.

    >>> scored = mask_score(np.full((1, 1, 8, 6), 9, np.float32), [[8, 8, 32, 40]], image_size=(48, 40))
    >>> int(scored.full(0).sum()), scored.pixel_scores.tolist()  # 32 x 24 pixels, all certain
    (768, [1.0])
    """
    looks = [_check_logits("logits", logits)]
    where = check_instance_boxes(boxes, len(looks[0]))
    _check_image(image_size, threshold)
    if flipped_logits is not None:
        mirrored = _check_logits("flipped_logits", flipped_logits)
        if mirrored.shape != looks[0].shape:
            raise QanetError("flipped_logits do not fit", expected=looks[0].shape, got=mirrored.shape)
        looks.append(unflip(mirrored, ()))
    crops = ([_crop(look[index]) for look in looks] for index in range(len(where)))
    return _score_all(crops, where, looks[0].shape[2:], image_size, threshold)


def probability_score(
    probabilities: ArrayLike, boxes: ArrayLike, image_size: tuple[int, int], threshold: float = MASK_THRESHOLD
) -> MaskScores:
    """Masks and scores from one map of foreground probabilities per box, as any Mask R-CNN has them (28x28, say).

    An image pixel samples the map bilinearly at its centre, zero outside the box: no upsampling comes before, and
    there is no sigmoid.

    Args:
        probabilities: (N, h, w) floats in [0, 1].
        boxes: (N, 4) xyxy boxes in continuous image pixels, as detected (not grown).
        image_size: (H, W) pixels.
        threshold: t in (0, 0.5], as for `mask_score`.
    Raises:
        QanetError: an argument that does not fit.

    >>> scored = probability_score(np.full((1, 28, 28), 0.9, np.float32), [[8, 8, 36, 36]], image_size=(48, 40))
    >>> int(scored.full(0)[:, 20].sum()), scored.pixel_scores.tolist()
    (28, [1.0])
    """
    maps = np.asarray(probabilities)
    if maps.ndim != 3 or maps.dtype.kind != "f":
        raise QanetError("probabilities do not fit", expected="floats (N, h, w)", got=f"{maps.dtype} {maps.shape}")
    maps = check_maps("probabilities", maps[:, None])[:, 0]
    if maps.size and not (maps.min() >= 0 and maps.max() <= 1):
        raise QanetError(
            "probabilities out of range", expected="0 to 1 (after the sigmoid)", got=f"{maps.min():g} to {maps.max():g}"
        )
    where = check_instance_boxes(boxes, len(maps))
    _check_image(image_size, threshold)
    quarter = (maps.shape[1] / UPSAMPLE, maps.shape[2] / UPSAMPLE)  # `region_of` expects the size of logits
    return _score_all(([map_[None]] for map_ in maps), where, quarter, image_size, threshold)


def _check_image(image_size: tuple[int, int], threshold: float) -> None:
    check_image(image_size, threshold)
    if not 0 < threshold <= 0.5:
        raise QanetError("threshold out of range", expected="0 < t <= 0.5", got=threshold)


def _check_logits(name: str, logits: ArrayLike) -> NDArray[np.float32]:
    maps = np.asarray(logits)
    if maps.ndim != 4 or maps.shape[1] != 1 or maps.dtype.kind != "f":
        raise QanetError(f"{name} do not fit", expected="floats (N, 1, h, w)", got=f"{maps.dtype} {maps.shape}")
    return check_maps(name, maps)


def _score_all(
    crops: Iterable[list[NDArray[np.float32]]],
    boxes: NDArray[np.float32],
    map_hw: Sequence[float],
    image_size: tuple[int, int],
    threshold: float,
) -> MaskScores:
    """Every instance from its looks' probabilities, (1, crop h, crop w) each."""
    rois = np.zeros((len(boxes), 4), np.int32)
    scores = np.zeros(len(boxes), np.float32)
    masks = []
    for index, (looks, box) in enumerate(zip(crops, boxes)):
        rois[index] = region_of(box, map_hw, image_size)
        mask, scores[index] = _score_instance(looks, box, rois[index], threshold)
        masks.append(mask)
    return MaskScores(rois, masks, scores, (int(image_size[0]), int(image_size[1])))


def _score_instance(
    crops: list[NDArray[np.float32]], box: NDArray[np.float32], roi: NDArray[np.int32], threshold: float
) -> tuple[NDArray[np.uint8], float]:
    """One region's mask (h, w) uint8 and its score, from each look's probabilities (1, crop h, crop w) over the box."""
    x0, y0, x1, y1 = (int(v) for v in roi)
    left, top, right, bottom = (float(v) for v in box.astype(np.float64))
    mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
    if mask.size == 0:
        return mask, 0.0
    crop_h, crop_w = crops[0].shape[1:]
    columns = paste_taps(x0, x1, left, right - left, crop_w)
    possible = certain = 0
    band = max(1, _BAND_PIXELS // (x1 - x0))
    for start in range(y0, y1, band):
        stop = min(start + band, y1)
        rows = paste_taps(start, stop, top, bottom - top, crop_h)
        pasted = [sample_columns(sample_rows(crop, rows), columns)[0] for crop in crops]
        probability = pasted[0] if len(pasted) == 1 else (pasted[0] + pasted[1]) / np.float32(2)
        mask[start - y0 : stop - y0] = probability >= _BINARY
        possible += int((probability >= np.float32(threshold)).sum())
        certain += int((probability >= np.float32(1 - threshold)).sum())
    return mask, certain / max(possible, 1e-6)


def _crop(look: NDArray[np.float32]) -> NDArray[np.float32]:
    """Foreground probability at crop resolution: (1, h, w) logits -> (1, 4h, 4w)."""
    height, width = look.shape[1:]
    rows, columns = (upsample_taps(np.arange(size * UPSAMPLE), size) for size in (height, width))
    with np.errstate(over="ignore"):  # exp of a large number is infinite and the probability 0, as it should be
        return np.asarray(1 / (1 + np.exp(-sample_columns(sample_rows(look, rows), columns))), np.float32)
