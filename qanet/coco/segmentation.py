"""COCO segmentations -> masks: polygons, run lengths packed into a string, and run lengths as a list.

Polygons are filled as pycocotools fills them, pixel by pixel (tests compare the two): a mask that is learned from is
then the very mask that is evaluated against.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.errors import QanetError
from qanet.rle import decode

_FINE = 5  # polygons are traced on a grid of 1/5 pixel


def segmentation_mask(segmentation: Any, image_hw: tuple[int, int]) -> NDArray[np.uint8]:
    """An annotation's or a result's `segmentation` as (H, W) uint8 of 0 and 1.

    Args:
        segmentation: a list of polygons [x0, y0, x1, y1, ...] in pixels (their union), or {"size", "counts"} with
            counts as a packed string (bytes) or a list of runs.
        image_hw: (H, W) pixels of the image.
    Raises:
        QanetError: neither of them, or run lengths of another size.
    """
    if isinstance(segmentation, list):
        mask = np.zeros(image_hw, np.uint8)
        for polygon in segmentation:
            mask |= fill_polygon(polygon, image_hw)
        return mask
    size = run_length_size(segmentation)
    if size is None:
        raise QanetError(
            "this is no segmentation",
            expected='polygons, or {"size": [H, W], "counts": ...}',
            got=repr(segmentation)[:80],
        )
    if size != tuple(image_hw):
        raise QanetError("a segmentation and its image differ in size", expected=tuple(image_hw), got=size)
    counts = segmentation["counts"]
    if isinstance(counts, list):
        return _from_runs(counts, size)
    text = counts.decode("ascii") if isinstance(counts, bytes) else counts
    return decode({"size": list(size), "counts": text})


def run_length_size(segmentation: Any) -> tuple[int, int] | None:
    """(H, W) of a run-length segmentation; None where it is something else."""
    if not isinstance(segmentation, dict) or not isinstance(segmentation.get("counts"), (str, bytes, list)):
        return None
    size = segmentation.get("size")
    if not isinstance(size, list) or len(size) != 2 or not all(type(v) is int and v > 0 for v in size):
        return None
    return size[0], size[1]


def fill_polygon(polygon: Sequence[float], image_hw: tuple[int, int]) -> NDArray[np.uint8]:
    """One polygon [x0, y0, x1, y1, ...] in pixels as (H, W) uint8 of 0 and 1.

    The outline is walked in steps of 1/5 pixel; wherever it passes the centre line of a pixel column, the column
    changes between outside and inside from that row on.

    Raises:
        QanetError: not three points or more of finite numbers.
    """
    try:
        points = np.asarray(polygon, np.float64)
    except (TypeError, ValueError) as error:
        raise QanetError("a polygon is not numbers", expected="[x0, y0, x1, y1, ...]", got=polygon) from error
    if points.ndim != 1 or len(points) < 6 or len(points) % 2 or not np.isfinite(points).all():
        got = f"{points.shape} with {np.isfinite(points).sum()} finite"
        raise QanetError("a polygon needs three points", expected="six finite numbers or more, an even count", got=got)
    height, width = image_hw
    x, y = _outline((_FINE * points.reshape(-1, 2) + 0.5).astype(np.int64))
    passes = np.flatnonzero(x[1:] != x[:-1])
    column = (np.minimum(x[passes], x[passes + 1]) + 0.5) / _FINE - 0.5
    row = np.ceil(np.clip((np.minimum(y[passes], y[passes + 1]) + 0.5) / _FINE - 0.5, 0, height)).astype(np.int64)
    centred = (np.floor(column) == column) & (column >= 0) & (column <= width - 1)
    places = column[centred].astype(np.int64) * height + row[centred]
    changes = np.bincount(places, minlength=height * width + 1)[: height * width]
    return (np.cumsum(changes) % 2).astype(np.uint8).reshape((height, width), order="F")


def _outline(corners: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Every grid point (x, y) along the closed outline, edge after edge, one point a step of the longer axis."""
    xs, ys = [], []
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0)):
        dx, dy = abs(x1 - x0), abs(y1 - y0)
        steps = np.arange(max(dx, dy) + 1)
        if dx >= dy:  # the shorter axis is rounded from the same end whichever way the edge runs
            turned = x0 > x1
            start, stop, other, last = (x1, x0, y1, y0) if turned else (x0, x1, y0, y1)
        else:
            turned = y0 > y1
            start, stop, other, last = (y1, y0, x1, x0) if turned else (y0, y1, x0, x1)
        steps = steps[::-1] if turned else steps
        slope = (last - other) / (stop - start) if stop > start else 0.0
        along, across = start + steps, np.trunc(other + slope * steps + 0.5).astype(np.int64)
        xs.append(along if dx >= dy else across)
        ys.append(across if dx >= dy else along)
    return np.concatenate(xs), np.concatenate(ys)


def _from_runs(runs: list[int], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Run lengths, alternately of 0 and 1, column by column."""
    if not all(type(v) is int and v >= 0 for v in runs) or sum(runs) != size[0] * size[1]:
        raise QanetError("run lengths do not fill the mask", expected=size[0] * size[1], got=str(runs)[:60])
    return np.repeat(np.arange(len(runs)) % 2, runs).astype(np.uint8).reshape(size, order="F")
