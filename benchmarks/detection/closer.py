"""The teacher looks closer: at parts of a frame, each at the teacher's own input size.

A small teacher misses people in a large frame, and whoever finds them seems wrong. What it sees in the parts alone is
nothing that has to be found, but no error either.
"""

import numpy as np
from numpy.typing import NDArray

from qanet.geometry import suppress
from qanet.runtime.detectors.base import Detections, Detector

_SHARES = (1.0, 0.65)  # of the frame's shorter side: the sides of the squares
_RIM_PX = 2.0  # a box that ends at a cut is of somebody who is cut
_NMS_IOU = 0.6
_LEAST_SCORE = 0.3  # many looks see much: what the teacher is less sure of in a part excuses nobody


def squares_of(image_hw: tuple[int, int]) -> list[tuple[int, int, int]]:
    """x0, y0 and side of overlapping squares that cover a frame (H, W), for each of the sides."""
    squares = []
    for share in _SHARES:
        side = max(round(share * min(image_hw)), 1)
        rows, columns = (_starts(size, side) for size in image_hw)
        squares += [(x, y, side) for y in rows for x in columns]
    return squares


def look_closer(teacher: Detector, image: NDArray[np.uint8], frame: int | str) -> Detections:
    """What the teacher sees in the squares, in the frame's pixels; people whom a square cuts are left out."""
    height, width = image.shape[:2]
    boxes, scores = [np.zeros((0, 4), np.float32)], [np.zeros(0, np.float32)]
    for x, y, side in squares_of((height, width)):
        found = teacher.detect(np.ascontiguousarray(image[y : y + side, x : x + side]), frame)
        low, high = found.boxes[:, :2], found.boxes[:, 2:]
        begins, ends = np.array([x > 0, y > 0]), np.array([x + side < width, y + side < height])
        cut = ((low <= _RIM_PX) & begins).any(1) | ((high >= side - _RIM_PX) & ends).any(1)
        taken = ~cut & (found.scores >= _LEAST_SCORE)
        boxes.append(found.boxes[taken] + np.array([x, y, x, y], np.float32))
        scores.append(found.scores[taken])
    all_boxes, all_scores = np.concatenate(boxes), np.concatenate(scores)
    kept = suppress(all_boxes, all_scores, _NMS_IOU)
    return Detections(all_boxes[kept], all_scores[kept])


def _starts(size: int, side: int) -> list[int]:
    """Where the parts of a length begin: evenly, overlapping by half or more."""
    count = 1 if size <= side else 1 + int(np.ceil(2 * (size - side) / side))
    return [round(v) for v in np.linspace(0, max(size - side, 0), count)]
