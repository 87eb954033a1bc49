"""Losses of the mask task: binary cross-entropy, Lovasz on the sigmoid, and the IoU head's squared error.

Sources: method, sections Losses and Other tasks. The sigmoid of one logit x is the softmax of (0, x), so the method's
cross-entropy and Lovasz-softmax (background included) apply as they are: their sum trains the border that the pixel
score measures, where the Lovasz hinge would stop at a margin of 1, a probability of 0.73, below the 0.75 from which
a pixel counts as certain. The IoU head learns the mask's own IoU, not the mean with the background's: that one is
what Q stands for, and the background of a crop is nearly always right.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from qanet.labels import IGNORE
from qanet.train.loop.losses import PartialSets, iou_loss, lovasz_softmax, parsing_losses
from qanet.train.networks.mask_head import is_mask_task


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
