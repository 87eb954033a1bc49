"""Losses of the method: cross-entropy, Lovasz-softmax and the IoU head's squared error.

Sources: method, sections Losses and IoU head; Lovasz-softmax is arXiv 1705.08790. Ignored pixels
(labels.IGNORE) take no part in any of them; a pixel with a partial label (`qanet.train.data.people`) asks for the
sum of its classes' probabilities.
"""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from qanet.labels import IGNORE
from qanet.train.networks.parser import is_mask_task

PartialSets = Mapping[int, tuple[int, ...]]  # partial id -> the classes that it may be
_LEAST_KNOWN = 0.9  # of a crop's foreground: with less the IoU head has no target


def lovasz_softmax(probabilities: Tensor, labels: Tensor, partial: PartialSets | None = None) -> Tensor:
    """Lovasz-softmax, per image, over the classes present in that image (background included), then the mean.

    Args:
        probabilities: (N, C, H, W) float, softmaxed.
        labels: (N, H, W) int64, IGNORE where void.
        partial: a pixel of such an id counts for no class that it may be, and against every other.
    Returns:
        () loss. An image that is void throughout adds nothing.
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
    """() sum over the pixels with a partial label of -log of the probability of all classes that they may be.

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

    0 where a crop's foreground has partial labels beyond a tenth; less of them is void.
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
    """Half the squared error, averaged over the crops whose target is above zero; () and 0 where there is none."""
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
        stride: 1 as upstream; 2 compares logits of half resolution with every second label per axis, which costs a
            quarter. A label then stands up to half a pixel beside its logit; random phases even that out.
        lovasz_stride: Lovasz sees every such pixel per axis of what the others see: its sort dominates its cost.
        phase: of both strides, row and column; taken modulo each.
        with_lovasz: leave the Lovasz term out when False.
        partial: what the ids beyond the classes stand for; None: there are none.
    Returns:
        {"ce", "lovasz" (if asked), "iou"}: () float32 each.
    """
    rows, columns = (slice(p % stride, None, stride) for p in phase)
    labels = labels[:, rows, columns].long()
    exact = torch.promote_types(logits.dtype, torch.float32)  # half precision is lifted, double stays
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
    """(N, 1, h, w) mask logits as (N, 2, h, w) logits of background and person; more channels pass as they are.

    Argmax, softmax and confusion tables then serve masks too.
    """
    return torch.cat([torch.zeros_like(logits), logits], 1) if logits.shape[1] == 1 else logits


@torch.no_grad()
def mask_iou_targets(logits: Tensor, labels: Tensor) -> Tensor:
    """IoU of each crop's mask (probability of 0.5 or more) with the truth; (N,), 0 where neither shows anything.

    Args:
        logits: (N, 1, H, W).
        labels: (N, H, W) 0, 1 or IGNORE; ignored pixels count on neither side.
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
        stride, lovasz_stride, phase, with_lovasz: as for `losses.parsing_losses`.
        partial: taken and not used: a mask has one class.
    Returns:
        {"ce" (the mean binary cross-entropy), "lovasz" (if asked), "iou"}: () float32 each.
    """
    rows, columns = (slice(p % stride, None, stride) for p in phase)
    labels = labels[:, rows, columns].long()
    exact = torch.promote_types(logits.dtype, torch.float32)  # half precision is lifted, double stays
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
    """The losses of a recipe with that label set: `mask_losses` or `losses.parsing_losses`, which take the same."""
    return mask_losses if is_mask_task(labels) else parsing_losses
