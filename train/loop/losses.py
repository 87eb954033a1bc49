"""Losses of the method: cross-entropy, Lovasz-softmax and the IoU head's squared error.

Sources: method, sections Losses and IoU head; Lovasz-softmax is arXiv 1705.08790. Ignored pixels
(labels.IGNORE) take no part in any of them.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from qanet.labels import IGNORE


def lovasz_softmax(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Lovasz-softmax, per image, over the classes present in that image (background included), then the mean.

    Args:
        probabilities: (N, C, H, W) float, softmaxed.
        labels: (N, H, W) int64, IGNORE where void.
    Returns:
        () loss. An image that is void throughout adds nothing.
    """
    losses = []
    for probability, label in zip(probabilities, labels):
        valid = label != IGNORE
        p, y = probability[:, valid], label[valid]  # (C, P), (P,)
        if y.numel():
            losses.append(_lovasz_flat(p, y))
    return torch.stack(losses).mean() if losses else probabilities.sum() * 0


def _lovasz_flat(p: Tensor, y: Tensor) -> Tensor:
    present = torch.unique(y)
    foreground = (y[None] == present[:, None]).to(p.dtype)  # (K, P)
    errors = (foreground - p[present]).abs()
    errors_sorted, order = torch.sort(errors, dim=1, descending=True)
    gradient = _lovasz_gradient(torch.gather(foreground, 1, order))
    return (errors_sorted * gradient).sum(1).mean()


def _lovasz_gradient(foreground_sorted: Tensor) -> Tensor:
    """Gradient of the Lovasz extension of the Jaccard loss with respect to the sorted errors; (K, P)."""
    total = foreground_sorted.sum(1, keepdim=True)
    intersection = total - foreground_sorted.cumsum(1)
    union = total + (1 - foreground_sorted).cumsum(1)
    jaccard = 1 - intersection / union
    return torch.cat([jaccard[:, :1], jaccard[:, 1:] - jaccard[:, :-1]], 1)


@torch.no_grad()
def iou_targets(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean IoU of each crop's argmax over the classes present in prediction or truth, background included; (N,)."""
    num_classes = logits.shape[1]
    predicted = logits.argmax(1)
    targets = logits.new_zeros(len(logits))
    for index, (guess, truth) in enumerate(zip(predicted, labels)):
        valid = truth != IGNORE
        pair = truth[valid].long() * num_classes + guess[valid]
        table = torch.bincount(pair, minlength=num_classes**2).view(num_classes, num_classes).double()
        union = table.sum(0) + table.sum(1) - table.diag()
        seen = union > 0
        if seen.any():
            targets[index] = (table.diag()[seen] / union[seen]).mean()
    return targets


def iou_loss(predicted: Tensor, targets: Tensor) -> Tensor:
    """Half the squared error, averaged over the crops whose target is above zero; () and 0 where there is none."""
    positive = targets > 0
    difference = (predicted - targets)[positive]
    return 0.5 * difference.square().sum() / positive.sum().clamp(min=1)


def parsing_losses(
    logits: Tensor, iou_predicted: Tensor, labels: Tensor, *, stride: int = 1, lovasz_stride: int = 1,
    phase: tuple[int, int] = (0, 0), with_lovasz: bool = True,
) -> dict[str, Tensor]:  # fmt: skip
    """All losses, unweighted, of quarter-resolution logits against full-resolution labels.

    Args:
        logits: (N, C, H/4, W/4).
        iou_predicted: (N,).
        labels: (N, H, W) uint8 or int64.
        stride: 1 as upstream; 2 compares logits of half resolution with every second label per axis, which costs a
            quarter. A label then stands up to half a pixel beside its logit; random phases even that out.
        lovasz_stride: Lovasz sees every such pixel per axis of what the others see: its sort dominates its cost.
        phase: of both strides, row and column; taken modulo each.
        with_lovasz: leave the Lovasz term out when False.
    Returns:
        {"ce", "lovasz" (if asked), "iou"}: () float32 each.
    """
    rows, columns = (slice(p % stride, None, stride) for p in phase)
    labels = labels[:, rows, columns].long()
    exact = torch.promote_types(logits.dtype, torch.float32)  # half precision is lifted, double stays
    full = F.interpolate(logits.to(exact), size=labels.shape[1:], mode="bilinear", align_corners=False)
    valid = (labels != IGNORE).sum().clamp(min=1)
    losses = {"ce": F.cross_entropy(full, labels, ignore_index=IGNORE, reduction="sum") / valid}
    if with_lovasz:
        rows, columns = (slice(p % lovasz_stride, None, lovasz_stride) for p in phase)
        losses["lovasz"] = lovasz_softmax(full[:, :, rows, columns].softmax(1), labels[:, rows, columns])
    losses["iou"] = iou_loss(iou_predicted.to(exact), iou_targets(full, labels).to(exact))
    return losses
