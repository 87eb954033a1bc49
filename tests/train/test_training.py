"""The loop: it learns, resumes bit-exactly, stops on NaN, and keeps files whole."""

import dataclasses

import pytest
import torch

from qanet.datasets import PhotoFolder
from qanet.errors import QanetError
from qanet.labels import CCP13
from qanet.train.checkpoint import load_state, load_weights, save_weights
from qanet.train.loop import Trainer
from qanet.train.networks.parser import build
from qanet.train.recipes import recipe

SMALL = {"input_hw": "64x64", "batch_size": "2", "epochs": "2", "width": "16", "iou_hidden": "16", "lovasz_from": "0.4",
         "pretrained": "false"}  # fmt: skip


def make(small_ccp, folder, **overrides):
    settings = recipe("ccp13-lite0", {**SMALL, **overrides})
    data = PhotoFolder(small_ccp, CCP13, "train")
    return Trainer(settings, data, PhotoFolder(small_ccp, CCP13, "val"), folder, torch.device("cpu"))


def test_resuming_is_bit_exact(small_ccp, tmp_path):
    whole = make(small_ccp, tmp_path / "whole").run(lambda line: None)
    stopped = make(small_ccp, tmp_path / "parts")
    stopped.recipe = dataclasses.replace(stopped.recipe, epochs=1)
    stopped.run(lambda line: None)
    state = load_state(tmp_path / "parts" / "last.pt")
    full_recipe = recipe("ccp13-lite0", SMALL)
    torch.save({**state, "recipe": full_recipe.to_json()}, tmp_path / "parts" / "last.pt")
    resumed = make(small_ccp, tmp_path / "parts")
    assert resumed.epoch == 1
    resumed.run(lambda line: None)
    first, second = load_state(tmp_path / "whole" / "last.pt"), load_state(tmp_path / "parts" / "last.pt")
    for part in ("model", "ema"):
        for key, value in first[part].items():
            assert torch.equal(value, second[part][key]), key
    assert whole.epochs == 2


def test_it_learns_the_drawn_people(small_ccp, tmp_path):
    trainer = make(small_ccp, tmp_path / "run", epochs="20", ema_decay="0.3", learning_rate="3e-3", pretrained="true")
    lines = []
    run = trainer.run(lines.append)
    assert run.scores is not None and run.scores.pixel_accuracy > 0.85
    rows = (tmp_path / "run" / "log.csv").read_text().splitlines()
    assert len(rows) == 21 and rows[0].startswith("epoch,loss,ce")
    assert float(rows[-1].split(",")[2]) < 0.5 * float(rows[1].split(",")[2])


def test_another_recipe_is_refused(small_ccp, tmp_path):
    make(small_ccp, tmp_path / "run", epochs="1").run(lambda line: None)
    with pytest.raises(QanetError, match="another recipe"):
        make(small_ccp, tmp_path / "run", epochs="1", learning_rate="1e-5")


def test_a_loss_that_is_not_finite_stops_the_run(small_ccp, tmp_path):
    trainer = make(small_ccp, tmp_path / "run")
    trainer.model.parsing_head.classify.bias.data.fill_(float("nan"))
    with pytest.raises(QanetError, match="not finite at epoch 1, batch 0"):
        trainer.run(lambda line: None)
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_weights_round_trip_and_name_what_does_not_fit(tmp_path):
    settings = recipe("ccp13-lite0", SMALL)
    network = build(settings).eval()
    path = tmp_path / "model.safetensors"
    save_weights(path, network, settings)
    loaded, read = load_weights(path)
    assert read == settings
    for (key, a), b in zip(network.state_dict().items(), loaded.state_dict().values()):
        assert torch.allclose(a.float(), b.float(), atol=2e-3, rtol=1e-3), key
    save_weights(path, network, dataclasses.replace(settings, width=24))
    with pytest.raises(QanetError, match=r"neck.levels.0.0.conv.weight has the wrong shape.*24"):
        load_weights(path)
    path.write_bytes(b"\x00" * 100)
    with pytest.raises(QanetError, match="not a safetensors checkpoint"):
        load_weights(path)


class _Malicious:
    def __reduce__(self):
        return print, ("executed",)


def test_a_malicious_state_file_is_refused(tmp_path, capsys):
    torch.save({"recipe": _Malicious()}, tmp_path / "last.pt")
    with pytest.raises(QanetError, match="not a run's state"):
        load_state(tmp_path / "last.pt")
    assert "executed" not in capsys.readouterr().out


def test_the_pretrained_backbone_fills_every_tensor():
    network = build(recipe("ccp13-lite0"))
    before = {k: v.clone() for k, v in network.backbone.state_dict().items()}
    network.backbone.load_pretrained()
    unchanged = [
        k for k, v in network.backbone.state_dict().items() if v.is_floating_point() and torch.equal(v, before[k])
    ]
    assert unchanged == []
