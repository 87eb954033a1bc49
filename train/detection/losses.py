"""Losses of the detector: quality focal loss of the score, GIoU of the boxes, cross-entropy of the predicted IoU."""

import torch
import torch.nn.functional as F
from torch import Tensor

from qanet.train.detection.targets import assign
from qanet.train.networks.detector import Raw

BOX_WEIGHT, IOU_WEIGHT = 2.0, 0.5


def detection_losses(raw: Raw, truths: Tensor, centres: Tensor, strides: Tensor) -> dict[str, Tensor]:
    """The weighted losses of a batch.

    Args:
        raw: of the network, N images.
        truths: (N, M, 5) boxes xyxy in network pixels and scores; rows of score below `targets.IGNORED` are padding.
        centres, strides: of `cells_of`.
    Returns:
        {"score", "box", "iou"}: () float32 each, a sum over cells divided by the number of cells that answer for a
        person.
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
