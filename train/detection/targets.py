"""Which cells of the detector answer for which box (FCOS, arXiv 1904.01355, with centre sampling)."""

from typing import NamedTuple

import torch
from torch import Tensor

RADIUS = 1.5  # strides around a box's centre within which cells answer for it
RANGES_PX = {8: (0.0, 112.0), 16: (80.0, 224.0), 32: (160.0, float("inf"))}  # longer side of a stride's boxes
IGNORED = -1.0  # score of a box that is neither a person nor background


class Targets(NamedTuple):
    """Of the A cells of one image.

    Attributes:
        box: (A,) int64 index of the box a cell answers for, -1 for none.
        score: (A,) float32 what the cell is to say: the box's score, 0 for background.
        counted: (A,) bool: False where a cell lies in an ignored box and answers for no other.
    """

    box: Tensor
    score: Tensor
    counted: Tensor


def assign(boxes: Tensor, scores: Tensor, centres: Tensor, strides: Tensor) -> Targets:
    """Assign cells to boxes: on the levels that the box's longer side falls in, near its centre, the smaller box first.

    Every box gets a cell at least: the reach around its centre is never under half a stride. Between two levels both
    answer; suppression takes one.

    Args:
        boxes: (M, 4) xyxy in network pixels; M may be 0.
        scores: (M,) in 0..1, or IGNORED.
        centres: (A, 2) x, y of the cells.
        strides: (A,).
    """
    count = len(centres)
    nothing = torch.full((count,), -1, dtype=torch.int64, device=centres.device)
    if len(boxes) == 0:
        return Targets(nothing, torch.zeros_like(strides), torch.ones_like(strides, dtype=torch.bool))
    low, high = boxes[:, :2], boxes[:, 2:]
    sides = high - low  # (M, 2)
    offsets = (centres[:, None] - (low + high) / 2).abs()  # (A, M, 2)
    step = strides[:, None, None]
    reach = torch.minimum(RADIUS * step, torch.maximum(sides / 2, step / 2))
    longer = sides.amax(1)  # (M,)
    least, most = (strides.new_tensor([RANGES_PX[int(s)][k] for s in strides.tolist()]) for k in (0, 1))
    on_level = (longer >= least[:, None]) & (longer < most[:, None])  # (A, M)
    known = scores >= 0
    answers = (offsets < reach).all(2) & on_level & known
    area = torch.where(answers, sides.prod(1), torch.inf)  # (A, M)
    smallest, index = area.min(1)
    has_box = torch.isfinite(smallest)
    inside = ((centres[:, None] >= low) & (centres[:, None] < high)).all(2)
    ignored = (inside & ~known).any(1)
    return Targets(
        torch.where(has_box, index, nothing), torch.where(has_box, scores[index], torch.zeros_like(strides)),
        has_box | ~ignored,
    )  # fmt: skip
