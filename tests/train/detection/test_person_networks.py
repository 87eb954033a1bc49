"""The detector's network, targets and losses: shapes, decoding, who answers for whom, and that a scene is learnt."""

import math

import numpy as np
import pytest
import torch

from qanet.train.describe import network_size
from qanet.train.detection.losses import assign, detection_losses, overlaps
from qanet.train.detection.photographs import IGNORED
from qanet.train.networks import build
from qanet.train.networks.detector import STRIDES, DetectorNetwork, cells_of, decode, scores_of
from qanet.train.networks.parser import ParsingNetwork
from qanet.train.recipes import Recipe, recipe

TINY = Recipe("person-tiny", "personbox1", "detection", (64, 96), backbone="lite0-slim", width=16, pretrained=False)


@pytest.mark.parametrize("hw", [(64, 96), (32, 32), (160, 64)])
def test_every_cell_speaks(hw):
    network = build(TINY).eval()
    assert isinstance(network, DetectorNetwork)
    with torch.inference_mode():
        raw = network(network.normalise(torch.zeros(2, *hw, 3, dtype=torch.uint8)))
    cells = sum(hw[0] // s * (hw[1] // s) for s in STRIDES)
    assert raw.logits.shape == raw.iou_logits.shape == (2, cells) and raw.boxes.shape == (2, cells, 4)
    assert torch.isfinite(raw.boxes).all() and (raw.boxes[..., 2:] > raw.boxes[..., :2]).all()
    scores = scores_of(raw)
    assert ((scores > 0) & (scores < 0.02)).all()  # a fresh network says nobody


def test_build_gives_the_network_of_the_task_and_its_size_is_known():
    assert isinstance(build(Recipe("p", "ccp13", "ccp", (64, 64), width=8, iou_hidden=8)), ParsingNetwork)
    parts = network_size(recipe("person-lite0"))
    assert set(parts) == {"total", "backbone", "pyramid", "heads"}
    assert parts["total"].parameters == sum(p.numel() for p in build(recipe("person-lite0")).parameters())
    assert 2e6 < parts["total"].parameters < 3e6


def test_cells_and_decoding_by_hand():
    centres, strides = cells_of((64, 96))
    assert len(centres) == len(strides) == 8 * 12 + 4 * 6 + 2 * 3
    assert centres[0].tolist() == [4, 4] and centres[12].tolist() == [4, 12]  # the second row
    assert centres[-1].tolist() == [80, 48] and strides[-1] == 32
    logs = torch.zeros(1, len(centres), 4)
    logs[0, 0] = torch.tensor([0.0, math.log(2), math.log(3), math.log(4)])
    logs[0, 1] = 100.0  # bounded, not infinite
    boxes = decode(logs, (64, 96))
    assert boxes[0, 0].tolist() == pytest.approx([4 - 8, 4 - 16, 4 + 24, 4 + 32], rel=1e-5)
    assert torch.isfinite(boxes).all()


def assigned(boxes, scores, hw=(128, 128), guesses=None, logits=None):
    """Targets, centres and strides; the network guesses the first box everywhere, or what is given."""
    centres, strides = cells_of(hw)
    rows = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    if guesses is None:
        guesses = rows[:1].expand(len(centres), 4) if len(rows) else torch.zeros(len(centres), 4)
    if logits is None:
        logits = torch.zeros(len(centres))
    return assign(rows, torch.tensor(scores, dtype=torch.float32), centres, strides, logits, guesses), centres, strides


@pytest.mark.parametrize(
    "box", [[10, 10, 16, 30], [40, 40, 44, 44], [20, 20, 50, 105], [0, 0, 120, 220], [0, 0, 120, 300]]
)
def test_boxes_are_answered_for_near_their_centre(box):
    targets, centres, strides = assigned([box], [0.7], (320, 320))
    positive = targets.box == 0
    assert 1 <= positive.sum() <= 10
    middle = torch.tensor([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2])
    assert ((centres[positive] - middle).abs() <= 2.5 * strides[positive][:, None]).all()
    assert (targets.score[positive] == 0.7).all() and (targets.score[~positive] == 0).all() and targets.counted.all()


def test_the_cells_that_say_it_best_answer():
    """Those that guess the box on one level and are surest; as many as their overlaps sum up to."""
    box = [20.0, 20, 80, 100]
    centres, strides = cells_of((128, 128))
    good = (strides == 16) & ((centres - torch.tensor([50.0, 60.0])).abs() <= 24).all(1)
    guesses = torch.where(good[:, None], torch.tensor(box), torch.tensor([0.0, 0, 1, 1]))
    targets, *_ = assigned([box], [1.0], guesses=guesses)
    assert set(torch.nonzero(targets.box == 0)[:, 0].tolist()) <= set(torch.nonzero(good)[:, 0].tolist())
    assert (targets.box == 0).sum() == min(10, int(good.sum()))
    logits = torch.full((len(centres),), -9.0)
    sure = int(torch.nonzero(good)[0, 0])
    logits[sure] = 9.0
    poor = torch.tensor([20.0, 20, 80, 40]).expand(len(centres), 4)  # a quarter each: one or two cells
    targets, *_ = assigned([box], [1.0], guesses=poor, logits=logits)
    assert targets.box[sure] == 0 and (targets.box == 0).sum() == 2


def test_every_small_box_gets_a_cell_wherever_it_lies():
    for x in np.arange(20, 29, 0.9):
        targets, *_ = assigned([[x, x, x + 3, x + 5]], [1.0])
        assert (targets.box == 0).any()


def test_a_wanted_cell_goes_to_the_better_box_and_ignored_ones_silence_their_cells():
    boxes = [[0, 0, 60, 100], [10, 20, 50, 80]]
    targets, *_ = assigned(boxes, [1.0, 0.5])
    assert set(targets.box.tolist()) == {-1, 0, 1}  # the guesses fit the first, yet the second has its cells
    assert (targets.box == 0).sum() > (targets.box == 1).sum()
    targets, centres, _ = assigned([[0, 0, 60, 60], [20, 20, 36, 40]], [IGNORED, 1.0])
    inside = (centres < 60).all(1)
    assert not (targets.box == 0).any() and (targets.box == 1).any()
    assert (targets.counted == (~inside | (targets.box == 1))).all()
    nobody, *_ = assigned([], [])
    assert (nobody.box == -1).all() and nobody.counted.all()


def test_overlaps_equal_their_definitions():
    a = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 10]])
    b = torch.tensor([[0.0, 0, 10, 10], [5, 0, 15, 10], [20, 0, 30, 10]])
    iou, giou = overlaps(a, b)
    assert iou.tolist() == pytest.approx([1, 1 / 3, 0]) and giou.tolist() == pytest.approx([1, 1 / 3, -1 / 3])


def test_a_batch_without_people_has_finite_losses():
    network = build(TINY)
    raw = network(torch.zeros(2, 3, 64, 96))
    losses = detection_losses(raw, torch.full((2, 4, 5), -2.0), *cells_of((64, 96)))
    assert all(torch.isfinite(v) for v in losses.values()) and losses["box"] == losses["iou"] == 0
    torch.stack(list(losses.values())).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


def test_a_scene_is_learnt_and_its_boxes_come_out():
    torch.manual_seed(0)
    network = build(TINY).train()
    images = torch.zeros(2, 64, 96, 3, dtype=torch.uint8)
    images[0, 10:50, 20:36] = torch.tensor([200, 40, 40], dtype=torch.uint8)
    images[1, 8:40, 60:74] = torch.tensor([200, 40, 40], dtype=torch.uint8)
    truths = torch.full((2, 3, 5), -2.0)
    truths[0, 0], truths[1, 0] = torch.tensor([20.0, 10, 36, 50, 1]), torch.tensor([60.0, 8, 74, 40, 1])
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3)
    cells, history = cells_of((64, 96)), []
    for _ in range(60):
        losses = detection_losses(network(network.normalise(images)), truths, *cells)
        loss = torch.stack(list(losses.values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(float(loss.detach()))
    assert history[-1] < 0.25 * history[0]
    with torch.inference_mode():
        raw = network(network.normalise(images))  # in training mode: two images give no running statistics
    for k in range(2):
        best = scores_of(raw)[k].argmax()
        iou, _ = overlaps(raw.boxes[k, best][None], truths[k, :1, :4])
        assert iou > 0.7
