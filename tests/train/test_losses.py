"""Losses against the official code's values and gradients, and their rules for void pixels."""

import numpy as np
import pytest
import torch

from qanet.labels import IGNORE
from qanet.train.losses import iou_loss, iou_targets, lovasz_softmax, parsing_losses


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
