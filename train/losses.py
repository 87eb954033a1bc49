"""Losses of parsing and of instance masks: cross-entropy, Lovasz and the squared error of the IoU head.

Sources: method, sections Losses, IoU head and Other tasks; Lovasz-softmax is arXiv 1705.08790. Void pixels
(labels.IGNORE) take no part in any loss. A pixel with a partial label (`qanet.train.data.people`) is trained on the sum
of the probabilities of its classes.

A mask has one logit x per pixel, and its sigmoid is the softmax of (0, x). So the method's cross-entropy and
Lovasz-softmax (background included) apply to masks unchanged. The Lovasz hinge would not do: it stops at a margin of 1,
a probability of 0.73, below the 0.75 from which the pixel score counts a pixel. For a mask the IoU head learns the IoU
of the mask, which Q stands for, not the mean with the background, which is nearly always right.
"""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from qanet.labels import IGNORE
from qanet.train.networks.parser import is_mask_task

PartialSets = Mapping[int, tuple[int, ...]]  # partial id -> its candidate classes
_LEAST_KNOWN = 0.9  # share of exactly labelled foreground below which a crop is no target of the IoU head


def lovasz_softmax(probabilities: Tensor, labels: Tensor, partial: PartialSets | None = None) -> Tensor:
    """Lovasz-softmax per image over the classes present in it (background included), then the mean over images.

    Args:
        probabilities: (N, C, H, W) float, softmaxed.
        labels: (N, H, W) int64, IGNORE where void.
        partial: a pixel with such an id counts against every class that is not among its candidates.
    Returns:
        () loss. An image that is void throughout is left out.
    """
    losses = []
    for probability, label in zip(probabilities, labels):
        valid = label != IGNORE
        p, y = probability[:, valid], label[valid]  # (C, P), (P,)
        if y.numel():
            losses.append(_lovasz_flat(p, y, partial or {}))
    return torch.stack(losses).mean() if losses else probabilities.sum() * 0


def _lovasz_flat(p: Tensor, y: Tensor, partial: PartialSets) -> Tensor:
    present = torch.unique(y)
    classes = present[present < len(p)]
    if not len(classes):
        return p.sum() * 0
    foreground = (y[None] == classes[:, None]).to(p.dtype)  # (K, P)
    errors = (foreground - p[classes]).abs()
    for code in present[present >= len(p)].tolist():
        members = torch.tensor(partial[code], device=y.device)
        undecided = torch.isin(classes, members)[:, None] & (y == code)[None]
        errors = errors.masked_fill(undecided, 0.0)  # sorted last, with no weight
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


def partial_cross_entropy(logits: Tensor, labels: Tensor, partial: PartialSets) -> Tensor:
    """Sum over the pixels with a partial label of -log of the summed probability of their candidate classes; ().

    Args:
        logits: (N, C, H, W).
        labels: (N, H, W) int64.
    """
    total = logits.new_zeros(())
    for code, members in partial.items():
        where = labels == code
        if where.any():
            pixels = logits.permute(0, 2, 3, 1)[where]  # (P, C)
            total = total + (pixels.logsumexp(1) - pixels[:, list(members)].logsumexp(1)).sum()
    return total


@torch.no_grad()
def iou_targets(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean IoU of each crop's argmax over the classes present in prediction or truth, background included; (N,).

    0 for a crop with partial labels on more than a tenth of its foreground; fewer of them count as void.
    """
    num_classes = logits.shape[1]
    predicted = logits.argmax(1)
    targets = logits.new_zeros(len(logits))
    for index, (guess, truth) in enumerate(zip(predicted, labels)):
        valid = truth < num_classes
        shown = (truth != 0) & (truth != IGNORE)
        if (shown & valid).sum() < _LEAST_KNOWN * shown.sum():
            continue
        pair = truth[valid].long() * num_classes + guess[valid]
        table = torch.bincount(pair, minlength=num_classes**2).view(num_classes, num_classes).double()
        union = table.sum(0) + table.sum(1) - table.diag()
        seen = union > 0
        if seen.any():
            targets[index] = (table.diag()[seen] / union[seen]).mean()
    return targets


def iou_loss(predicted: Tensor, targets: Tensor) -> Tensor:
    """Half the squared error, averaged over the crops whose target is above zero; (), 0 without such a crop."""
    positive = targets > 0
    difference = (predicted - targets)[positive]
    return 0.5 * difference.square().sum() / positive.sum().clamp(min=1)


def parsing_losses(
    logits: Tensor,
    iou_predicted: Tensor,
    labels: Tensor,
    *,
    stride: int = 1,
    lovasz_stride: int = 1,
    phase: tuple[int, int] = (0, 0),
    with_lovasz: bool = True,
    partial: PartialSets | None = None,
) -> dict[str, Tensor]:
    """All losses, unweighted, of quarter-resolution logits against full-resolution labels.

    Args:
        logits: (N, C, H/4, W/4).
        iou_predicted: (N,).
        labels: (N, H, W) uint8 or int64.
        stride: 1 as in the official code; 2 compares logits of half resolution with every second label per axis, at a
            quarter of the cost. A label is then up to half a pixel off its logit; random phases even that out.
        lovasz_stride: Lovasz sees every such pixel per axis of those, because its sort dominates the cost.
        phase: first row and column of both strides, taken modulo each.
        with_lovasz: False leaves the Lovasz loss out.
        partial: candidate classes of the ids beyond the classes; None: there are no such ids.
    Returns:
        {"ce", "lovasz" (if asked for), "iou"}: () float32 each.
    """
    rows, columns = (slice(p % stride, None, stride) for p in phase)
    labels = labels[:, rows, columns].long()
    exact = torch.promote_types(logits.dtype, torch.float32)  # half precision becomes float32, double stays
    full = F.interpolate(logits.to(exact), size=labels.shape[1:], mode="bilinear", align_corners=False)
    valid = (labels != IGNORE).sum().clamp(min=1)
    known = labels.where(labels < logits.shape[1], IGNORE) if partial else labels
    entropy = F.cross_entropy(full, known, ignore_index=IGNORE, reduction="sum")
    if partial:
        entropy = entropy + partial_cross_entropy(full, labels, partial)
    losses = {"ce": entropy / valid}
    if with_lovasz:
        rows, columns = (slice(p % lovasz_stride, None, lovasz_stride) for p in phase)
        losses["lovasz"] = lovasz_softmax(full[:, :, rows, columns].softmax(1), labels[:, rows, columns], partial)
    losses["iou"] = iou_loss(iou_predicted.to(exact), iou_targets(full, labels).to(exact))
    return losses


def two_class_logits(logits: Tensor) -> Tensor:
    """(N, 1, h, w) mask logits as (N, 2, h, w) logits of background and person; other logits pass unchanged.

    Argmax, softmax and confusion tables then work for masks too.
    """
    return torch.cat([torch.zeros_like(logits), logits], 1) if logits.shape[1] == 1 else logits


@torch.no_grad()
def mask_iou_targets(logits: Tensor, labels: Tensor) -> Tensor:
    """IoU of each crop's mask (probability of 0.5 or more) with the truth; (N,), 0 if both are empty.

    Args:
        logits: (N, 1, H, W).
        labels: (N, H, W) 0, 1 or IGNORE.
    """
    valid = labels != IGNORE
    guess, truth = (logits[:, 0] >= 0) & valid, (labels == 1) & valid
    union = (guess | truth).sum((1, 2))
    return (guess & truth).sum((1, 2)) / union.clamp(min=1)


def mask_losses(
    logits: Tensor,
    iou_predicted: Tensor,
    labels: Tensor,
    *,
    stride: int = 1,
    lovasz_stride: int = 1,
    phase: tuple[int, int] = (0, 0),
    with_lovasz: bool = True,
    partial: PartialSets | None = None,
) -> dict[str, Tensor]:
    """All losses, unweighted, of quarter-resolution mask logits against full-resolution labels.

    Args:
        logits: (N, 1, H/4, W/4).
        iou_predicted: (N,).
        labels: (N, H, W) uint8 or int64: 0, 1 (the person), IGNORE.
        stride, lovasz_stride, phase, with_lovasz: as for `parsing_losses`.
        partial: ignored, since a mask has one class; for the signature of `parsing_losses`.
    Returns:
        {"ce" (the mean binary cross-entropy), "lovasz" (if asked), "iou"}: () float32 each.
    """
    rows, columns = (slice(p % stride, None, stride) for p in phase)
    labels = labels[:, rows, columns].long()
    exact = torch.promote_types(logits.dtype, torch.float32)  # half precision becomes float32, double stays
    full = F.interpolate(logits.to(exact), size=labels.shape[1:], mode="bilinear", align_corners=False)
    valid = labels != IGNORE
    wanted = (labels == 1).to(exact)
    pixels = F.binary_cross_entropy_with_logits(full[:, 0], wanted, valid.to(exact), reduction="sum")
    losses = {"ce": pixels / valid.sum().clamp(min=1)}
    if with_lovasz:
        rows, columns = (slice(p % lovasz_stride, None, lovasz_stride) for p in phase)
        person = full[:, :, rows, columns].sigmoid()
        losses["lovasz"] = lovasz_softmax(torch.cat([1 - person, person], 1), labels[:, rows, columns])
    losses["iou"] = iou_loss(iou_predicted.to(exact), mask_iou_targets(full, labels).to(exact))
    return losses


def losses_of(labels: str) -> Callable[..., dict[str, Tensor]]:
    """`mask_losses` or `parsing_losses`, which take the same arguments, for a recipe with that label set."""
    return mask_losses if is_mask_task(labels) else parsing_losses
