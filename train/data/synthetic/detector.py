"""What a detector might have found in a scene: true boxes shifted, doubled and missed, and boxes on nobody.

Scores follow the overlap only loosely, as a detector's do: that is what a quality score has to mend.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float64]  # (N, 5) x0 y0 x1 y1 score


@dataclass(frozen=True)
class DetectorStyle:
    """The synthetic detector's habits; lengths are shares of a box's sides."""

    jitter: float = 0.05  # standard deviation of each edge
    missed: float = 0.05  # probability of a wholly visible person to be missed
    missed_covered: float = 0.4  # the same for a person of whom nothing is seen; in between, linear
    doubled: float = 0.35  # probability of a second box on a person
    double_jitter: float = 0.15
    spurious: float = 0.8  # mean number of boxes on nobody in an image (Poisson)
    spurious_iou: float = 0.2  # most that such a box overlaps a person
    score_offset: float = 0.25  # score = clip(offset + slope * IoU + noise * N(0, 1), 0.05, 1)
    score_slope: float = 0.5
    score_noise: float = 0.2
    spurious_score: tuple[float, float] = (0.45, 0.2)  # mean and standard deviation on nobody


def detect(
    boxes: NDArray[np.float32],
    visible: NDArray[np.float64],
    hw: tuple[int, int],
    style: DetectorStyle,
    rng: np.random.Generator,
) -> tuple[Rows, NDArray[np.float64]]:
    """Boxes of one scene.

    Args:
        boxes: (P, 4) true boxes.
        visible: (P,) seen share of each person.
        hw: the scene's size in pixels.
    Returns:
        (N, 5) detections by descending score, and (N,) the IoU of each with the nearest true box.
    """
    found: list[NDArray[np.float64]] = []
    for box, share in zip(boxes.astype(np.float64), visible):
        missed = style.missed + (style.missed_covered - style.missed) * (1 - share)
        if rng.random() < missed:
            continue
        found.append(_shifted(box, style.jitter, hw, rng))
        if rng.random() < style.doubled:
            found.append(_shifted(box, style.double_jitter, hw, rng))
    found += _on_nobody(boxes, hw, style, rng)
    where = np.array(found).reshape(-1, 4)
    ious = box_iou(where, boxes).max(1, initial=0.0)
    scores = style.score_offset + style.score_slope * ious + style.score_noise * rng.standard_normal(len(where))
    mean, spread = style.spurious_score
    nobody = ious <= style.spurious_iou
    scores[nobody] = mean + spread * rng.standard_normal(int(nobody.sum()))
    order = np.argsort(-scores, kind="stable")
    rows = np.column_stack([where, np.clip(scores, 0.05, 1.0)])
    return rows[order], ious[order]


def box_iou(first: NDArray, second: NDArray) -> NDArray[np.float64]:
    """(N, M) IoU of xyxy boxes (N, 4) with (M, 4)."""
    first, second = first.astype(np.float64)[:, None], second.astype(np.float64)[None]
    sides = np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(first[..., :2], second[..., :2])
    common = np.maximum(sides, 0).prod(-1)
    areas = [(boxes[..., 2:] - boxes[..., :2]).prod(-1) for boxes in (first, second)]
    return common / (areas[0] + areas[1] - common)


def _shifted(box: NDArray[np.float64], jitter: float, hw: tuple[int, int], rng: np.random.Generator) -> NDArray:
    """Every edge moved on its own, by no more than a third of the side, inside the image."""
    sides = np.tile(box[2:] - box[:2], 2)
    moved = box + np.clip(jitter * rng.standard_normal(4), -1 / 3, 1 / 3) * sides
    inside: NDArray = np.clip(moved, 0, np.array([hw[1], hw[0], hw[1], hw[0]]))
    return inside if (inside[2:] - inside[:2] >= 2).all() else box


def _on_nobody(
    boxes: NDArray[np.float32], hw: tuple[int, int], style: DetectorStyle, rng: np.random.Generator
) -> list[NDArray]:
    """Boxes of a person's shape where hardly anybody is; a crowded scene may have no place for one."""
    found: list[NDArray] = []
    for _ in range(int(rng.poisson(style.spurious))):
        for _ in range(20):
            height = rng.uniform(0.25, 0.9) * hw[0]
            width = height * rng.uniform(0.3, 0.5)
            x, y = rng.uniform(0, hw[1] - width), rng.uniform(0, hw[0] - height)
            box = np.array([x, y, x + width, y + height])
            if box_iou(box[None], boxes).max(initial=0.0) <= style.spurious_iou:
                found.append(box)
                break
    return found
