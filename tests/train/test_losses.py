"""Losses against the official code's values and gradients, and their rules for void pixels."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from qanet.labels import IGNORE
from qanet.train.losses import (
    iou_loss,
    iou_targets,
    losses_of,
    lovasz_softmax,
    mask_iou_targets,
    mask_losses,
    parsing_losses,
    two_class_logits,
)
from qanet.train.networks import build
from qanet.train.networks.parser import MaskHead, is_mask_task
from qanet.train.recipes import Recipe
from qanet.train.weights import load_weights, save_weights


@pytest.mark.parametrize("case", ["l01", "l02"])
def test_values_and_gradients_equal_the_official_code(golden, case):
    data = np.load(golden / "losses" / f"{case}.npz")
    logits = torch.from_numpy(data["logits"].astype(np.float64)).requires_grad_()
    guess = torch.from_numpy(data["iou_pred"].astype(np.float64)[:, 0]).requires_grad_()
    losses = parsing_losses(logits, guess, torch.from_numpy(data["targets"]))
    w_ce, w_lovasz, w_iou = data["weights"].tolist()
    for key, expected in (("ce", data["loss_ce"]), ("lovasz", data["loss_lovasz"]), ("iou", data["loss_iou"] / w_iou)):
        assert losses[key].item() == pytest.approx(float(expected), abs=1e-7), key
    (w_ce * losses["ce"] + w_lovasz * losses["lovasz"] + w_iou * losses["iou"]).backward()
    np.testing.assert_allclose(logits.grad.numpy(), data["grad_total"], atol=1e-8)
    np.testing.assert_allclose(guess.grad.numpy(), data["grad_iou"][:, 0], atol=1e-7)
    targets = iou_targets(torch.from_numpy(data["logits"]), torch.from_numpy(data["targets"]))
    np.testing.assert_allclose(targets.numpy(), data["iou_targets"], atol=1e-6)


def test_void_pixels_change_nothing():
    torch.manual_seed(0)
    logits = torch.randn(2, 4, 6, 8)
    labels = torch.randint(0, 4, (2, 24, 32))
    labels[:, :7] = IGNORE
    other = logits.clone()
    full = torch.nn.functional.interpolate(logits, size=(24, 32), mode="bilinear", align_corners=False)
    noisy = full.clone()
    noisy[:, :, :7] += 5 * torch.randn(2, 4, 7, 32)
    assert torch.allclose(lovasz_softmax(full.softmax(1), labels), lovasz_softmax(noisy.softmax(1), labels))
    assert torch.equal(iou_targets(full, labels), iou_targets(noisy, labels))
    first = parsing_losses(logits, torch.ones(2), labels)
    labels_more = labels.clone()
    assert torch.equal(first["ce"], parsing_losses(other, torch.ones(2), labels_more)["ce"])


def test_an_image_of_void_alone_gives_finite_losses():
    labels = torch.full((1, 8, 8), IGNORE)
    losses = parsing_losses(torch.randn(1, 3, 2, 2, requires_grad=True), torch.ones(1), labels)
    assert all(torch.isfinite(v) for v in losses.values())
    assert losses["ce"].item() == 0


def test_lovasz_on_a_sub_grid_sees_just_those_pixels():
    torch.manual_seed(1)
    logits, labels = torch.randn(1, 3, 4, 4), torch.randint(0, 3, (1, 16, 16))
    full = torch.nn.functional.interpolate(logits, size=(16, 16), mode="bilinear", align_corners=False)
    expected = lovasz_softmax(full[:, :, 1::2, 0::2].softmax(1), labels[:, 1::2, 0::2])
    losses = parsing_losses(logits, torch.ones(1), labels, lovasz_stride=2, phase=(1, 0))
    assert torch.allclose(losses["lovasz"], expected)


def test_half_resolution_compares_every_second_label_of_a_phase():
    torch.manual_seed(2)
    logits, labels = torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 16, 16))
    half = torch.nn.functional.interpolate(logits, size=(8, 8), mode="bilinear", align_corners=False)
    seen = labels[:, 1::2, 0::2]
    losses = parsing_losses(logits, torch.ones(2), labels, stride=2, phase=(3, 2))
    assert torch.allclose(losses["ce"], torch.nn.functional.cross_entropy(half, seen))
    assert torch.allclose(losses["lovasz"], lovasz_softmax(half.softmax(1), seen))


def test_iou_loss_ignores_targets_of_zero():
    loss = iou_loss(torch.tensor([0.5, 9.0]), torch.tensor([1.0, 0.0]))
    assert loss.item() == pytest.approx(0.125)
    assert iou_loss(torch.tensor([3.0]), torch.tensor([0.0])).item() == 0


RECIPE = Recipe(
    "person-mask-tiny",
    labels="person1",
    data_format="coco",
    input_hw=(64, 64),
    width=16,
    iou_hidden=16,
    pretrained=False,
)


def mask_batch(seed=0):
    """Logits (3, 1, 6, 8) in double, predicted IoUs (3,), labels (3, 24, 32) with some void."""
    torch.manual_seed(seed)
    labels = torch.randint(0, 2, (3, 24, 32))
    labels[:, 3:7, 5:20] = IGNORE
    logits = torch.randn(3, 1, 6, 8, dtype=torch.float64).requires_grad_()
    return logits, torch.rand(3, dtype=torch.float64).requires_grad_(), labels


@pytest.mark.parametrize("options", [{}, {"lovasz_stride": 2, "phase": (1, 0)}, {"stride": 2, "phase": (1, 1)}])
def test_the_sigmoid_of_one_logit_is_the_softmax_of_two(options):
    logits, iou, labels = mask_batch()
    masks = mask_losses(logits, iou, labels, **options)
    two = parsing_losses(two_class_logits(logits), iou, labels, **options)
    for key in ("ce", "lovasz"):
        assert masks[key].item() == pytest.approx(two[key].item(), abs=1e-12)
        (ours,) = torch.autograd.grad(masks[key], logits, retain_graph=True)
        (theirs,) = torch.autograd.grad(two[key], logits, retain_graph=True)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
        assert ours.abs().sum() > 0


def test_cross_entropy_is_the_mean_over_what_is_not_void():
    logits, iou, labels = mask_batch()
    full = F.interpolate(logits, size=labels.shape[1:], mode="bilinear", align_corners=False)[:, 0]
    p = full.sigmoid()
    by_hand = -torch.where(labels == 1, p.log(), (1 - p).log())[labels != IGNORE].mean()
    assert mask_losses(logits, iou, labels)["ce"].item() == pytest.approx(by_hand.item(), abs=1e-12)


def test_void_pixels_of_masks_change_nothing():
    logits, iou, labels = mask_batch()
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
    logits, iou, labels = mask_batch()
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
