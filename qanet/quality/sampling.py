"""Where image pixels look into a crop: the region a crop reaches, the x4 upsampling, and the paste, as two-tap lines.

Both interpolations are separable, so each is a pair of taps an axis; nothing of the image's size is ever allocated.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

UPSAMPLE = 4  # the logits' stride


def unflip(maps: NDArray[np.float32], flip_pairs: Sequence[tuple[int, int]]) -> NDArray[np.float32]:
    """Mirror (N, C, h, w) maps back and swap left with right classes."""
    order = np.arange(maps.shape[1])
    for left, right in flip_pairs:
        order[left], order[right] = right, left
    return np.ascontiguousarray(maps[:, order, :, ::-1])


def region_of(box: ArrayLike, map_hw: Sequence[float], image_size: tuple[int, int]) -> tuple[int, int, int, int]:
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
