"""Mask losses against the method's two-class losses, targets by hand, and the one-channel network."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from qanet.labels import IGNORE
from qanet.train.losses import losses_of, mask_iou_targets, mask_losses, parsing_losses, two_class_logits
from qanet.train.networks import build
from qanet.train.networks.parser import MaskHead, is_mask_task
from qanet.train.recipes import Recipe
from qanet.train.weights import load_weights, save_weights

RECIPE = Recipe(
    "person-mask-tiny",
    labels="person1",
    data_format="coco",
    input_hw=(64, 64),
    width=16,
    iou_hidden=16,
    pretrained=False,
)


def batch(seed=0):
    """Logits (3, 1, 6, 8) in double, predicted IoUs (3,), labels (3, 24, 32) with some void."""
    torch.manual_seed(seed)
    labels = torch.randint(0, 2, (3, 24, 32))
    labels[:, 3:7, 5:20] = IGNORE
    logits = torch.randn(3, 1, 6, 8, dtype=torch.float64).requires_grad_()
    return logits, torch.rand(3, dtype=torch.float64).requires_grad_(), labels


@pytest.mark.parametrize("options", [{}, {"lovasz_stride": 2, "phase": (1, 0)}, {"stride": 2, "phase": (1, 1)}])
def test_the_sigmoid_of_one_logit_is_the_softmax_of_two(options):
    logits, iou, labels = batch()
    masks = mask_losses(logits, iou, labels, **options)
    two = parsing_losses(two_class_logits(logits), iou, labels, **options)
    for key in ("ce", "lovasz"):
        assert masks[key].item() == pytest.approx(two[key].item(), abs=1e-12)
        (ours,) = torch.autograd.grad(masks[key], logits, retain_graph=True)
        (theirs,) = torch.autograd.grad(two[key], logits, retain_graph=True)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
        assert ours.abs().sum() > 0


def test_cross_entropy_is_the_mean_over_what_is_not_void():
    logits, iou, labels = batch()
    full = F.interpolate(logits, size=labels.shape[1:], mode="bilinear", align_corners=False)[:, 0]
    p = full.sigmoid()
    by_hand = -torch.where(labels == 1, p.log(), (1 - p).log())[labels != IGNORE].mean()
    assert mask_losses(logits, iou, labels)["ce"].item() == pytest.approx(by_hand.item(), abs=1e-12)


def test_void_pixels_change_nothing():
    logits, iou, labels = batch()
    torch.manual_seed(1)
    full = F.interpolate(logits.detach(), size=labels.shape[1:], mode="bilinear", align_corners=False)
    noisy = torch.where((labels == IGNORE)[:, None], full + 9 * torch.randn_like(full), full)
    assert not torch.equal(noisy, full)
    for a, b in zip(mask_losses(full, iou, labels).values(), mask_losses(noisy, iou, labels).values()):
        assert a.item() == pytest.approx(b.item(), abs=1e-12)


def test_iou_targets_are_of_the_mask_alone():
    logits = torch.full((4, 1, 4, 4), -1.0)
    labels = torch.zeros(4, 4, 4, dtype=torch.long)
    logits[0, 0, :2], labels[0, :3] = 0.0, 1  # 8 of 12; a logit of 0 is a probability of 0.5, in the mask
    logits[1, 0, :2], labels[1, 1:3] = 5.0, 1  # 4 of 12
    labels[1, 1] = IGNORE  # ... and nothing in common once that row is void
    labels[2, 0] = 1  # nothing found
    assert mask_iou_targets(logits, labels).tolist() == pytest.approx([8 / 12, 0.0, 0.0, 0.0])


def test_the_iou_loss_is_half_the_squared_error_where_there_is_overlap():
    logits = torch.tensor([9.0, 9.0, -9.0]).view(3, 1, 1, 1).expand(3, 1, 2, 2)
    labels = torch.zeros(3, 8, 8, dtype=torch.uint8)
    labels[0] = 1
    labels[1, :4] = 1
    loss = mask_losses(logits, torch.tensor([0.5, 1.0, 7.0]), labels)["iou"]
    assert loss.item() == pytest.approx((0.5 * 0.5**2 + 0.5 * 0.5**2) / 2)


@pytest.mark.parametrize("label", [IGNORE, 0, 1])
def test_one_sided_crops_give_finite_losses_and_gradients(label):
    logits = torch.randn(2, 1, 4, 4, requires_grad=True)
    losses = mask_losses(logits, torch.ones(2, requires_grad=True), torch.full((2, 16, 16), label))
    torch.stack(list(losses.values())).sum().backward()
    assert all(torch.isfinite(v) for v in losses.values()) and torch.isfinite(logits.grad).all()
    assert (losses["ce"].item() == 0) == (label == IGNORE)


def test_without_lovasz_and_in_half_precision():
    logits, iou, labels = batch()
    assert mask_losses(logits, iou, labels, with_lovasz=False).keys() == {"ce", "iou"}
    half = mask_losses(logits.bfloat16(), iou.bfloat16(), labels)
    assert all(value.dtype == torch.float32 for value in half.values())


def test_two_class_logits_leave_parsing_alone():
    logits = torch.randn(2, 5, 3, 3)
    assert two_class_logits(logits) is logits
    one = torch.randn(2, 1, 3, 3)
    assert torch.allclose(two_class_logits(one).softmax(1)[:, 1:], one.sigmoid())


def test_the_recipe_of_the_label_set_builds_one_channel(tmp_path):
    torch.manual_seed(0)
    network = build(RECIPE).eval()
    assert isinstance(network.parsing_head, MaskHead) and is_mask_task(RECIPE.labels) and not is_mask_task("ccp13")
    crops = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8))
    with torch.inference_mode():
        logits, iou = network(network.normalise(crops))
    assert logits.shape == (2, 1, 16, 16) and iou.shape == (2,)
    save_weights(tmp_path / "m.safetensors", network, RECIPE)
    loaded, read = load_weights(tmp_path / "m.safetensors")
    assert read == RECIPE and isinstance(loaded.parsing_head, MaskHead)


def test_the_label_set_chooses_the_losses():
    assert losses_of("person1") is mask_losses and losses_of("ccp13") is parsing_losses
