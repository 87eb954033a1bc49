"""What every form of a pixel score shares: the checks of its arguments, and where image pixels look into a crop.

A crop reaches a region of the image; its maps are upsampled x4 and pasted. Both interpolations are separable, so each
is a pair of taps per axis; nothing of the image's size is ever allocated.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qanet.errors import QanetError

UPSAMPLE = 4  # the logits' stride


def check_arguments(
    logits: ArrayLike, boxes: ArrayLike, image_size: tuple[int, int], threshold: float, name: str = "logits"
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Validate the arguments every form of the parsing pixel score takes.

    Args:
        logits: (N, C, h, w) floats of any width and layout, 2 to 256 classes, each finite in float32: a nan or an
            infinity comes from an engine that overflowed, and no label or score made from it means anything.
        boxes: (N, 4) numbers, x0 y0 x1 y1 in continuous image pixels.
        image_size: (H, W) pixels.
        threshold: T in [0, 1).
        name: what the logits are called in an error.
    Returns:
        Contiguous float32 logits (N, C, h, w) and float32 boxes (N, 4).
    Raises:
        QanetError: naming the argument, with expected against got.

    >>> maps, boxes = check_arguments(np.zeros((1, 3, 8, 6), np.float16), [[8, 8, 32, 40]], (48, 40), threshold=0.2)
    >>> maps.dtype.name, boxes.shape
    ('float32', (1, 4))
    """
    maps = np.asarray(logits)
    if maps.ndim != 4 or maps.dtype.kind != "f":
        raise QanetError(f"{name} do not fit", expected="floats (N, C, h, w)", got=f"{maps.dtype} {maps.shape}")
    if not 2 <= maps.shape[1] <= 256:
        raise QanetError(f"{name} have a bad number of classes", expected="2 to 256", got=maps.shape[1])
    where = check_instance_boxes(boxes, len(maps))
    check_image(image_size, threshold)
    return check_maps(name, maps), where


def check_maps(name: str, maps: NDArray[np.floating]) -> NDArray[np.float32]:
    """(N, C, h, w) floats as contiguous float32; QanetError, with `name`, for an empty map or numbers not finite."""
    if min(maps.shape[2:]) < 1:
        raise QanetError(f"{name} have an empty map", expected="h and w of 1 or more", got=maps.shape[2:])
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, which is refused below
        single = np.ascontiguousarray(maps, np.float32)
    # Both extremes are finite exactly when every number is: they propagate nan, and need no temporary array.
    if single.size and not (np.isfinite(single.max()) and np.isfinite(single.min())):
        wrong = int(single.size - np.isfinite(single).sum())
        raise QanetError(f"{name} are not finite", expected="finite float32", got=f"{wrong} nan or infinite numbers")
    return single


def check_instance_boxes(boxes: ArrayLike, count: int) -> NDArray[np.float32]:
    """(count, 4) float32 boxes with x0 < x1 and y0 < y1; QanetError for anything else."""
    try:
        where = np.asarray(boxes, np.float32)
    except (TypeError, ValueError) as error:
        raise QanetError("boxes are not numbers", expected=(count, 4), got=boxes) from error
    if where.size == 0:
        where = where.reshape(-1, 4)
    if where.shape != (count, 4):
        raise QanetError("boxes do not fit the logits", expected=(count, 4), got=where.shape)
    if not np.isfinite(where).all() or (where[:, 2:] <= where[:, :2]).any():
        raise QanetError("a box is not finite or is empty", expected="finite x0 < x1, y0 < y1", got=where.tolist())
    return where


def check_image(image_size: tuple[int, int], threshold: float) -> None:
    """(H, W) of one pixel or more and 0 <= T < 1; QanetError for anything else."""
    if len(image_size) != 2 or min(image_size) < 1:
        raise QanetError("image_size does not fit", expected="(H, W) of 1 or more", got=image_size)
    if not 0 <= threshold < 1:
        raise QanetError("threshold out of range", expected="0 <= T < 1", got=threshold)


def unflip(maps: NDArray[np.float32], flip_pairs: Sequence[tuple[int, int]]) -> NDArray[np.float32]:
    """Mirror (N, C, h, w) maps back and swap left with right classes.

    >>> unflip(np.arange(6, dtype=np.float32).reshape(1, 3, 1, 2), flip_pairs=[(1, 2)])[0, :, 0].tolist()
    [[1.0, 0.0], [5.0, 4.0], [3.0, 2.0]]
    """
    order = np.arange(maps.shape[1])
    for left, right in flip_pairs:
        order[left], order[right] = right, left
    return np.ascontiguousarray(maps[:, order, :, ::-1])


def region_of(box: ArrayLike, map_hw: Sequence[float], image_size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Image pixels (x0, y0, x1, y1) that sample the crop at all: the box and half a crop pixel around it, clipped.

    Args:
        box: xyxy, continuous image pixels.
        map_hw: (h, w) of the crop's maps, at a quarter of its resolution.
        image_size: (H, W) pixels.

    >>> region_of([10, 10, 42, 42], map_hw=(4, 4), image_size=(100, 100))  # half a crop pixel is one image pixel
    (9, 9, 43, 43)
    """
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
class Taps:
    """Two-tap linear interpolation along one axis: value = low_weight * a[low] + high_weight * a[high]."""

    low: NDArray[np.intp]
    high: NDArray[np.intp]
    low_weight: NDArray[np.float32]
    high_weight: NDArray[np.float32]


def paste_taps(start: int, stop: int, origin: float, extent: float, size: int) -> Taps:
    """Where image pixels start..stop sample a crop axis of `size` pixels laid over [origin, origin + extent)."""
    position = (np.arange(start, stop, dtype=np.float64) + 0.5 - origin) * (size / extent) - 0.5
    low = np.floor(position)
    fraction = position - low
    inside_low = (low >= 0) & (low < size)
    inside_high = (low + 1 >= 0) & (low + 1 < size)
    index = np.clip(low, -1, size - 1).astype(np.intp)
    return Taps(
        np.maximum(index, 0),
        np.minimum(index + 1, size - 1),
        np.where(inside_low, 1 - fraction, 0).astype(np.float32),
        np.where(inside_high, fraction, 0).astype(np.float32),
    )


def upsample_taps(rows: NDArray[np.intp], size: int) -> Taps:
    """Bilinear x4 with align_corners False: crop pixels `rows` from a map axis of `size` pixels."""
    position = np.maximum((rows + 0.5) / UPSAMPLE - 0.5, 0)
    low = np.minimum(np.floor(position).astype(np.intp), size - 1)
    fraction = (position - low).astype(np.float32)
    return Taps(low, np.minimum(low + 1, size - 1), 1 - fraction, fraction)


def sample_rows(maps: NDArray[np.float32], taps: Taps) -> NDArray[np.float32]:
    """Interpolate along axis 1 of (C, h, w)."""
    low = maps[:, taps.low] * taps.low_weight[:, None]
    low += maps[:, taps.high] * taps.high_weight[:, None]
    return low


def sample_columns(maps: NDArray[np.float32], taps: Taps) -> NDArray[np.float32]:
    """Interpolate along axis 2 of (C, h, w)."""
    low = np.take(maps, taps.low, axis=2) * taps.low_weight
    low += np.take(maps, taps.high, axis=2) * taps.high_weight
    return low
