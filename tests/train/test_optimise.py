"""Optimisers, schedules and precisions of a recipe."""

import math

import pytest
import torch
from torch import nn

from qanet.errors import QanetError
from qanet.train.optimise import MixedPrecision, lr_factor, make_optimizer
from qanet.train.recipes import recipe


@pytest.mark.parametrize(
    ("overrides", "step", "expected"),
    [
        ({"warmup_share": "0.1"}, 0, 0.1),
        ({"warmup_share": "0.1"}, 9, 1.0),
        ({"warmup_share": "0"}, 0, 1.0),
        ({"warmup_share": "0"}, 50, 0.5),
        ({"warmup_share": "0"}, 99, 0.5 * (1 + math.cos(math.pi * 0.99))),
        ({"schedule": "level", "warmup_share": "0"}, 50, 1.0),
        ({"schedule": "level", "warmup_share": "0"}, 75, 0.5),
        ({"schedule": "level", "warmup_share": "0"}, 99, 1 / 50),
        ({"schedule": "step", "warmup_share": "0", "milestones": "0.5,0.75"}, 49, 1.0),
        ({"schedule": "step", "warmup_share": "0", "milestones": "0.5,0.75"}, 50, 0.1),
        ({"schedule": "step", "warmup_share": "0", "milestones": "0.5,0.75"}, 99, 0.01),
    ],
)
def test_the_learning_rate_of_a_step(overrides, step, expected):
    settings = recipe("ccp13-lite0", overrides)
    assert lr_factor(settings, step, 100) == pytest.approx(expected)


def test_the_official_schedule_falls_at_epochs_90_and_120():
    settings = recipe("cihp-r50c-512x384")
    assert [round(lr_factor(settings, epoch * 10, 1400), 6) for epoch in (0, 89, 90, 119, 120, 139)] == [
        1,
        1,
        0.1,
        0.1,
        0.01,
        0.01,
    ]
    model = nn.ModuleDict({"backbone": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    optimizer = make_optimizer(model, settings)
    assert type(optimizer) is torch.optim.Adam
    assert {(g["lr"], g["weight_decay"]) for g in optimizer.param_groups} == {(7.5e-4, 0.0)}


def test_the_backbone_learns_slower_and_biases_do_not_decay():
    settings = recipe("ccp13-lite0", {"learning_rate": "1e-2", "backbone_lr_factor": "0.1", "weight_decay": "0.5"})
    model = nn.ModuleDict({"backbone": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    model["head"].bias.requires_grad_(False)
    groups = {(g["lr"], g["weight_decay"]): len(g["params"]) for g in make_optimizer(model, settings).param_groups}
    assert groups == {(1e-3, 0.5): 1, (1e-3, 0.0): 1, (1e-2, 0.5): 1}


@pytest.mark.parametrize(
    ("key", "build"),
    [
        ("optimizer", lambda r: make_optimizer(nn.Linear(1, 1), r)),
        ("schedule", lambda r: lr_factor(r, 50, 100)),
        ("amp", lambda r: MixedPrecision(r.amp, "cpu")),
    ],
)
def test_unknown_names_are_refused(key, build):
    with pytest.raises(QanetError, match=rf"unknown {key}.*got sgdr"):
        build(recipe("ccp13-lite0", {key: "sgdr"}))


@pytest.mark.parametrize(("name", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16), ("off", torch.float32)])
def test_the_forward_pass_has_the_type_asked_for(name, dtype):
    precision = MixedPrecision(name, "cpu")
    layer = nn.Linear(4, 4)
    with precision.autocast():
        out = layer(torch.ones(1, 4))
    assert out.dtype == dtype
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    before = layer.bias.detach().clone()
    precision.step(3 * out.float().sum(), layer, optimizer, clip_norm=0.5)
    moved = (layer.bias.detach() - before).norm()
    assert moved.item() == pytest.approx(0.5 / math.sqrt(5), rel=0.05)  # a fifth of the clipped square is the bias's


def test_fp16_gradients_that_overflow_skip_the_step():
    precision = MixedPrecision("fp16", "cpu")
    layer = nn.Linear(1, 1)
    before = layer.weight.detach().clone()
    scale = precision.scaler.get_scale()
    precision.step(layer(torch.ones(1, 1)).sum() * 1e38, layer, torch.optim.SGD(layer.parameters(), lr=1.0), 1.0)
    assert torch.equal(layer.weight, before) and precision.scaler.get_scale() == scale / 2
