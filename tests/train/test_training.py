"""The loop: it learns, resumes bit-exactly, stops on NaN, and keeps files whole."""

import dataclasses

import cv2
import numpy as np
import pytest
import torch

from qanet.datasets import PhotoFolder
from qanet.errors import QanetError
from qanet.labels import CCP13
from qanet.train.networks import build
from qanet.train.recipes import recipe
from qanet.train.trainer import Trainer
from qanet.train.weights import load_state, load_weights, save_weights

SMALL = {
    "input_hw": "64x64",
    "batch_size": "2",
    "epochs": "2",
    "width": "16",
    "iou_hidden": "16",
    "lovasz_from": "0.4",
    "pretrained": "false",
}


def make(small_ccp, folder, **overrides):
    settings = recipe("ccp13-lite0", {**SMALL, **overrides})
    data = PhotoFolder(small_ccp, CCP13, "train")
    return Trainer(settings, data, PhotoFolder(small_ccp, CCP13, "val"), folder, torch.device("cpu"))


@pytest.mark.parametrize("stop", [1, 2])
@pytest.mark.parametrize(
    "settings", [{}, {"schedule": "step", "optimizer": "adam", "amp": "off"}], ids=["modern", "step"]
)
def test_resuming_is_bit_exact(small_ccp, tmp_path, stop, settings):
    settings = {"epochs": "3", **settings}
    make(small_ccp, tmp_path / "whole", **settings).run(lambda line: None)
    make(small_ccp, tmp_path / "parts", **settings).run(lambda line: None, until=stop)
    resumed = make(small_ccp, tmp_path / "parts", **settings)
    assert resumed.epoch == stop
    resumed.run(lambda line: None)
    first, second = load_state(tmp_path / "whole" / "last.pt"), load_state(tmp_path / "parts" / "last.pt")
    for part in ("model", "ema"):
        for key, value in first[part].items():
            assert torch.equal(value, second[part][key]), key
    assert first["schedule"] == second["schedule"] and first["scaler"] == second["scaler"]


def test_it_learns_the_drawn_people(small_ccp, tmp_path):
    trainer = make(small_ccp, tmp_path / "run", epochs="20", ema_decay="0.3", learning_rate="3e-3", pretrained="true")
    lines = []
    run = trainer.run(lines.append)
    assert run.scores["val_pixel_accuracy"] > 0.85
    rows = (tmp_path / "run" / "log.csv").read_text().splitlines()
    assert len(rows) == 21 and rows[0].startswith("epoch,loss,ce")
    picture = cv2.imread(str(tmp_path / "run" / "pictures" / "epoch-020.jpg"))
    assert picture.shape == (3 * 64, 2 * 64 + 8, 3)  # photograph, truth, prediction of the two people of val
    assert float(rows[-1].split(",")[2]) < 0.5 * float(rows[1].split(",")[2])


def test_another_recipe_is_refused(small_ccp, tmp_path):
    make(small_ccp, tmp_path / "run", epochs="1").run(lambda line: None)
    with pytest.raises(QanetError, match="another recipe"):
        make(small_ccp, tmp_path / "run", epochs="1", learning_rate="1e-5")


def test_a_loss_that_is_not_finite_stops_the_run(small_ccp, tmp_path):
    trainer = make(small_ccp, tmp_path / "run")
    trainer.model.parsing_head.classify.bias.data.fill_(float("nan"))
    with pytest.raises(QanetError, match=r"not finite at epoch 1, batch 0 \(p\d, p\d, ...\)"):
        trainer.run(lambda line: None)
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_the_last_good_epoch_survives_a_loss_that_is_not_finite(small_ccp, tmp_path):
    make(small_ccp, tmp_path / "run").run(lambda line: None, until=1)
    trainer = make(small_ccp, tmp_path / "run")
    trainer.model.parsing_head.classify.bias.data.fill_(float("inf"))
    with pytest.raises(QanetError, match="epoch 2.*holds the last good epoch"):
        trainer.run(lambda line: None)
    assert make(small_ccp, tmp_path / "run").epoch == 1


def test_a_full_disk_leaves_the_old_state(small_ccp, tmp_path, monkeypatch):
    make(small_ccp, tmp_path / "run").run(lambda line: None, until=1)
    before = (tmp_path / "run" / "last.pt").read_bytes()

    def full(state, path):
        raise RuntimeError("PytorchStreamWriter failed writing file: No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(QanetError, match="could not write .*last.pt"):
        make(small_ccp, tmp_path / "run").run(lambda line: None)
    assert (tmp_path / "run" / "last.pt").read_bytes() == before


def test_a_crop_with_nobody_in_it_trains(small_ccp, tmp_path):
    for number in range(4):
        cv2.imwrite(str(small_ccp / "labels" / f"p{number}.png"), np.zeros((100, 80), np.uint8))
    run = make(small_ccp, tmp_path / "run", epochs="1").run(lambda line: None)
    assert run.epochs == 1 and run.weights.exists()


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
