"""Pixel score of keypoints: the mean certainty of the joints that are certain. Source: method, Other tasks.

A joint lies at its heat map's maximum, moved by a quarter of a cell towards the higher neighbour along each axis where
the maximum lies two cells or more inside the map. A cell becomes x0 + column * width / w, with no half-cell offset, as
in the official code; a box narrower than a pixel counts as a pixel wide.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qanet.errors import QanetError
from qanet.quality.arguments import check_boxes, check_maps

KEYPOINT_THRESHOLD = 0.2  # of every published configuration
_QUARTER = np.float32(0.25)


@dataclass(frozen=True)
class KeypointScores:
    """Where K joints of N instances are, and how certain they are."""

    points: NDArray[np.float32]  # (N, K, 2) x y in image pixels
    joint_scores: NDArray[np.float32]  # (N, K) the heat map's maximum, never below 0
    pixel_scores: NDArray[np.float32]  # (N,) mean of the joint scores that reach the threshold, 0 for none


def keypoint_score(
    heatmaps: ArrayLike, boxes: ArrayLike, threshold: float = KEYPOINT_THRESHOLD, refine: bool = True
) -> KeypointScores:
    """Joints and scores from heat maps. Views of a flip are averaged by the caller, as heat maps.

    Args:
        heatmaps: (N, K, h, w) finite floats, the network's raw output.
        boxes: (N, 4) xyxy crop boxes in continuous image pixels.
        threshold: joints less certain take no part in an instance's score.
        refine: move each joint by a quarter of a cell.
    Raises:
        QanetError: an argument that does not fit.
    """
    maps = np.asarray(heatmaps)
    if maps.ndim != 4 or maps.dtype.kind != "f" or maps.shape[1] < 1:
        raise QanetError("heatmaps do not fit", expected="floats (N, K, h, w)", got=f"{maps.dtype} {maps.shape}")
    if not np.isfinite(threshold):
        raise QanetError("threshold is not finite", expected="a number", got=threshold)
    single = check_maps("heatmaps", maps)
    where = check_boxes(boxes, len(single))
    cells, maxima = _maxima(single)
    if refine:
        cells = cells + _QUARTER * _slopes(single, cells)
    height, width = single.shape[2:]
    sizes = np.maximum(where[:, 2:] - where[:, :2], 1)  # (N, 2) pixels
    scale = sizes / np.array([width, height], np.float32)
    points = cells * scale[:, None] + where[:, None, :2]
    certain = maxima >= np.float32(threshold)
    total = np.where(certain, maxima, 0).sum(1, dtype=np.float64)
    scores = total / np.maximum(certain.sum(1), 1)
    return KeypointScores(points.astype(np.float32), maxima, scores.astype(np.float32))


def _maxima(maps: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The first greatest cell of each map, (N, K, 2) column and row, and its value (N, K); both 0 where none is > 0."""
    count, joints, height, width = maps.shape
    flat = maps.reshape(count, joints, height * width)
    best = flat.argmax(2)
    value = np.maximum(np.take_along_axis(flat, best[..., None], 2)[..., 0], 0)
    cells = np.stack([best % width, best // width], 2).astype(np.float32)
    return cells * (value > 0)[..., None], value


def _slopes(maps: NDArray[np.float32], cells: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, K, 2) of -1, 0, 1: towards the higher neighbour of each cell, 0 within two cells of the map's border."""
    height, width = maps.shape[2:]
    x, y = cells[..., 0].astype(np.intp), cells[..., 1].astype(np.intp)
    inside = (x > 1) & (x < width - 1) & (y > 1) & (y < height - 1)
    index, joint = np.indices(x.shape)

    def value(column: NDArray[np.intp], row: NDArray[np.intp]) -> NDArray[np.float32]:
        return maps[index, joint, np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)]

    along = np.stack([value(x + 1, y) - value(x - 1, y), value(x, y + 1) - value(x, y - 1)], 2)
    return np.asarray(np.sign(along) * inside[..., None], np.float32)
