"""An area of an image to hide: masks that grow, move and fall apart, and the coarse cells that replace the pixels."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

_LEAST_CELL_PX = 4.0
_STEP = 16  # between the values a cell may have: many frames of one face do not add up to its details


@dataclass
class Area:
    """Pixels to hide: a mask in a window of the image, and the size of the cells that hide them."""

    x0: int
    y0: int
    mask: NDArray[np.uint8]  # (h, w), 1 where it is to be hidden
    cell_px: float
    track_id: int | None = None

    @property
    def box(self) -> tuple[int, int, int, int]:
        """xyxy of the window."""
        return self.x0, self.y0, self.x0 + self.mask.shape[1], self.y0 + self.mask.shape[0]


def hulls(mask: NDArray[np.bool_]) -> list[NDArray[np.int32]]:
    """(K, 2) xy corners around each connected piece."""
    import cv2

    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [cv2.convexHull(contour)[:, 0] for contour in contours]


def filled(outlines: list[NDArray[np.int32]], shape: tuple[int, ...] | None = None) -> NDArray[np.uint8]:
    """(h, w) uint8: 1 inside the outlines and on them."""
    import cv2

    if shape is None:
        width, height = outlines[0].max(0) + 1
        shape = (int(height), int(width))
    canvas = np.zeros(shape, np.uint8)
    cv2.fillPoly(canvas, [np.ascontiguousarray(line) for line in outlines], 1)
    return canvas


def grown(mask: NDArray[np.uint8], origin_xy: ArrayLike, margin: float, cell_px: float) -> Area:
    """A mask and all that is not further from it, by rows and columns, than the margin in pixels."""
    import cv2

    pad = int(np.ceil(margin))
    square = np.ones((2 * pad + 1, 2 * pad + 1), np.uint8)
    x0, y0 = (np.asarray(origin_xy) - pad).tolist()
    return Area(x0, y0, cv2.dilate(np.pad(mask, pad), square), cell_px)


def rectangle(box: NDArray, cell_px: float) -> Area:
    (x0, y0), (x1, y1) = np.floor(box[:2]).astype(int).tolist(), np.ceil(box[2:]).astype(int).tolist()
    return Area(x0, y0, np.ones((max(y1 - y0, 1), max(x1 - x0, 1)), np.uint8), cell_px)


def widened(area: Area) -> Area:
    """All of the window and a quarter of it on every side."""
    x0, y0, x1, y1 = area.box
    by = np.array([x1 - x0, y1 - y0]) * 0.25
    return replace(
        rectangle(np.array([x0, y0, x1, y1] + np.concatenate([-by, by])), area.cell_px), track_id=area.track_id
    )


def overlap(one: Area, other: Area) -> bool:
    """Whether two windows have a third of the smaller one in common."""
    a, b = np.array(one.box), np.array(other.box)
    shared = np.prod(np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None))
    return bool(3 * shared >= min(one.mask.size, other.mask.size))


def hide(source: NDArray[np.uint8], target: NDArray[np.uint8], area: Area) -> None:
    """Replace an area in the target by what a few cells of the source keep of it."""
    import cv2

    (height, width), (x0, y0, x1, y1) = source.shape[:2], area.box
    left, top, right, bottom = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
    if left >= right or top >= bottom:
        return
    window = source[top:bottom, left:right]
    cell_px = max(area.cell_px, _LEAST_CELL_PX)
    cells = (max(1, int((right - left) / cell_px)), max(1, int((bottom - top) / cell_px)))
    small = cv2.resize(window, cells, interpolation=cv2.INTER_AREA)
    small = (small // _STEP * _STEP + _STEP // 2).reshape(cells[1], cells[0], 3)
    hidden = cv2.resize(small, (right - left, bottom - top), interpolation=cv2.INTER_LINEAR)
    mask = area.mask[top - y0 : bottom - y0, left - x0 : right - x0]
    cv2.copyTo(hidden, np.ascontiguousarray(mask), target[top:bottom, left:right])
