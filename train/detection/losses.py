"""Losses of the detector, and the assignment of its cells to boxes.

Quality focal loss of the score, GIoU of the boxes, cross-entropy of the predicted IoU. A box is assigned to the cells
that already predict it best: SimOTA, arXiv 2107.08430.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from qanet.train.networks.detector import Raw

RADIUS = 2.5  # strides around a box's centre within which cells may be assigned to it
_MOST_CELLS = 10  # per box
_IOU_COST = 3.0  # weight of -log IoU against -log probability in the cost


class Targets(NamedTuple):
    """Targets of the A cells of one image.

    Attributes:
        box: (A,) int64 index of the box that a cell is assigned to, -1 for none.
        score: (A,) float32 target score: that of the box, 0 for background.
        counted: (A,) bool: False for a cell in an ignored box that is assigned to no other.
    """

    box: Tensor
    score: Tensor
    counted: Tensor


@torch.no_grad()
def assign(boxes: Tensor, scores: Tensor, centres: Tensor, strides: Tensor, logits: Tensor, guesses: Tensor) -> Targets:
    """Assign cells to boxes: to each box the cells of least cost near its centre, on any level.

    The cost of a cell falls with its probability of a person and with the IoU of its own box. A box gets as many cells
    as the IoUs of its ten best cells sum up to, at least one. A cell that two boxes want goes to the one of less cost.

    Args:
        boxes: (M, 4) xyxy in network pixels; M may be 0.
        scores: (M,) in 0..1, or IGNORED.
        centres: (A, 2) x, y of the cells.
        strides: (A,).
        logits: (A,) of a person, as predicted now.
        guesses: (A, 4) predicted boxes, xyxy in network pixels.
    """
    box = torch.full((len(centres),), -1, dtype=torch.int64, device=centres.device)
    score = torch.zeros_like(strides)
    counted = torch.ones_like(strides, dtype=torch.bool)
    ignored = boxes[scores < 0]
    if len(ignored):
        inside = ((centres[:, None] >= ignored[:, :2]) & (centres[:, None] < ignored[:, 2:])).all(2)
        counted = ~inside.any(1)
    known = torch.nonzero(scores >= 0)[:, 0]
    if len(known) == 0:
        return Targets(box, score, counted)
    near = _near(boxes[known], centres, strides)  # (A, K)
    cells = torch.nonzero(near.any(1))[:, 0]
    overlap = _pairwise_iou(guesses[cells], boxes[known])  # (C, K)
    doubt = torch.nn.functional.softplus(-logits[cells])  # -log of the probability
    cost = doubt[:, None] - _IOU_COST * torch.log(overlap.clamp(min=1e-6))
    cost = torch.where(near[cells], cost, torch.inf)
    most = min(_MOST_CELLS, len(cells))
    best = torch.where(near[cells], overlap, torch.zeros_like(overlap)).topk(most, 0).values
    count = best.sum(0).long().clamp(min=1)  # (K,)
    cheapest, rows = cost.topk(most, 0, largest=False)  # (most, K)
    taken = (torch.arange(most, device=cost.device)[:, None] < count) & torch.isfinite(cheapest)
    answers = torch.zeros_like(cost, dtype=torch.bool).scatter(0, rows, taken)
    least, which = torch.where(answers, cost, torch.inf).min(1)
    chosen = torch.isfinite(least)
    box[cells[chosen]] = known[which[chosen]]
    score[cells[chosen]] = scores[known[which[chosen]]]
    counted[cells[chosen]] = True
    return Targets(box, score, counted)


def _near(boxes: Tensor, centres: Tensor, strides: Tensor) -> Tensor:
    """(A, K) bool: cells within RADIUS strides of a box's centre and in the box; a tiny box has the cell around it."""
    offsets = (centres[:, None] - (boxes[:, :2] + boxes[:, 2:]) / 2).abs()  # (A, K, 2)
    step = strides[:, None, None]
    reach = torch.minimum(RADIUS * step, torch.maximum((boxes[:, 2:] - boxes[:, :2]) / 2, step / 2))
    return (offsets <= reach).all(2)


def _pairwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU (A, K) of boxes (A, 4) with boxes (K, 4)."""
    common = torch.minimum(a[:, None, 2:], b[:, 2:]) - torch.maximum(a[:, None, :2], b[:, :2])
    area = common.clamp(min=0).prod(2)
    sizes = [(x[:, 2:] - x[:, :2]).clamp(min=0).prod(1) for x in (a, b)]
    return area / (sizes[0][:, None] + sizes[1] - area).clamp(min=1e-6)


BOX_WEIGHT, IOU_WEIGHT = 2.0, 0.5


def detection_losses(raw: Raw, truths: Tensor, centres: Tensor, strides: Tensor) -> dict[str, Tensor]:
    """The weighted losses of a batch.

    Args:
        raw: output of the network for N images.
        truths: (N, M, 5) boxes xyxy in network pixels and scores; rows with a score below IGNORED are padding.
        centres, strides: of `cells_of`.
    Returns:
        {"score", "box", "iou"}: () float32 each, a sum over cells divided by the number of cells that are assigned to
        a box.
    """
    indices, scores, counted, wanted = [], [], [], []
    guesses = raw.boxes.detach().float()
    for truth, logits, guess in zip(truths, raw.logits.detach().float(), guesses):
        rows = truth[truth[:, 4] >= -1]
        targets = assign(rows[:, :4], rows[:, 4], centres, strides, logits, guess)
        indices.append(targets.box)
        scores.append(targets.score)
        counted.append(targets.counted)
        wanted.append(rows[targets.box.clamp(min=0), :4] if len(rows) else torch.zeros_like(raw.boxes[0]))
    positive, target = torch.stack(indices) >= 0, torch.stack(scores)
    count = positive.sum().clamp(min=1)
    logits = raw.logits.float()
    probability = logits.sigmoid()
    focus = (target - probability).abs().square()
    score = focus * F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    score = (score * torch.stack(counted)).sum() / count
    got, box = raw.boxes.float()[positive], torch.stack(wanted)[positive]  # (P, 4)
    iou, giou = overlaps(got, box)
    quality = F.binary_cross_entropy_with_logits(raw.iou_logits.float()[positive], iou.detach(), reduction="sum")
    return {"score": score, "box": BOX_WEIGHT * (1 - giou).sum() / count, "iou": IOU_WEIGHT * quality / count}


def overlaps(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalised IoU (arXiv 1902.09630) of boxes (P, 4) with boxes (P, 4), pair by pair; (P,) each."""
    common = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0).prod(1)
    areas = [(x[:, 2:] - x[:, :2]).clamp(min=0).prod(1) for x in (a, b)]
    union = (areas[0] + areas[1] - common).clamp(min=1e-6)
    hull = (torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])).prod(1).clamp(min=1e-6)
    iou = common / union
    return iou, iou - (hull - union) / hull
