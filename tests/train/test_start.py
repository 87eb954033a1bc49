"""Runs that start from weights that are there, and stages that stay as they were."""

import pytest
import torch

from qanet.datasets import PhotoFolder
from qanet.errors import QanetError
from qanet.labels import CCP13, CCP59
from qanet.train.networks import build
from qanet.train.recipes import recipe
from qanet.train.trainer import Trainer
from qanet.train.weights import frozen_modules, save_weights, take_over

SMALL = {
    "input_hw": "64x64",
    "batch_size": "2",
    "epochs": "1",
    "width": "16",
    "iou_hidden": "16",
    "pretrained": "false",
}


@pytest.fixture
def checkpoint(tmp_path):
    settings = recipe("ccp13-lite0", SMALL)
    torch.manual_seed(7)
    network = build(settings)
    path = tmp_path / "start.safetensors"
    save_weights(path, network, settings)
    return path, network


def test_what_fits_is_taken_over_and_the_rest_is_named(checkpoint):
    path, network = checkpoint
    other = build(recipe("ccp59-lite0", SMALL))
    left = take_over(other, path)
    assert left == ["parsing_head.classify.bias", "parsing_head.classify.weight"]
    torch.testing.assert_close(
        other.neck.levels[0][0].conv.weight, network.neck.levels[0][0].conv.weight, atol=2e-3, rtol=2e-3
    )
    assert other.parsing_head.classify.weight.shape[0] == CCP59.num_classes


def test_another_backbone_is_refused(checkpoint):
    with pytest.raises(QanetError, match="has another backbone"):
        take_over(build(recipe("ccp13-r18", {**SMALL, "input_hw": "64x64"})), checkpoint[0])


def test_frozen_stages_keep_weights_and_statistics(small_ccp, tmp_path, checkpoint):
    settings = recipe("ccp13-lite0", {**SMALL, "frozen_stages": "3"})
    data = PhotoFolder(small_ccp, CCP13, "train")
    trainer = Trainer(settings, data, None, tmp_path / "run", torch.device("cpu"), initial_weights=checkpoint[0])
    before = {key: value.clone() for key, value in trainer.model.state_dict().items()}
    trainer.run(lambda line: None)
    frozen = ("backbone.stem.", "backbone.blocks.0.", "backbone.blocks.1.", "backbone.blocks.2.")
    for key, value in trainer.model.state_dict().items():
        if value.is_floating_point():
            assert torch.equal(value, before[key]) == key.startswith(frozen), key
    with pytest.raises(QanetError, match=r"bad frozen_stages .expected 0..8, got 9"):
        frozen_modules(trainer.model, 9)
