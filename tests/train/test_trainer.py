"""The training loop: it learns, resumes bit-exactly, stops on a loss that is not finite, and keeps files whole."""

import cv2
import numpy as np
import pytest
import torch

from qanet.datasets import PhotoFolder
from qanet.errors import QanetError
from qanet.labels import CCP13
from qanet.train.recipes import recipe
from qanet.train.trainer import Trainer
from qanet.train.weights import load_state

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


@pytest.mark.parametrize(
    "settings", [{}, {"schedule": "step", "optimizer": "adam", "amp": "off"}], ids=["modern", "step"]
)
def test_resuming_is_bit_exact(small_ccp, tmp_path, settings):
    settings = {"epochs": "3", **settings}
    make(small_ccp, tmp_path / "whole", **settings).run(lambda line: None)
    for stop in (1, 2, 3):
        part = make(small_ccp, tmp_path / "parts", **settings)
        assert part.epoch == stop - 1
        part.run(lambda line: None, until=stop)
    first, second = load_state(tmp_path / "whole" / "last.pt"), load_state(tmp_path / "parts" / "last.pt")
    for part in ("model", "ema"):
        for key, value in first[part].items():
            assert torch.equal(value, second[part][key]), key
    assert first["schedule"] == second["schedule"] and first["scaler"] == second["scaler"]


def test_it_learns_the_drawn_people(small_ccp, tmp_path):
    settings = {
        "epochs": "5",
        "epoch_people": "16",
        "ema_decay": "0.3",
        "learning_rate": "3e-3",
        "pretrained": "true",
        "amp": "bf16",
    }
    run = make(small_ccp, tmp_path / "run", **settings).run(lambda line: None)
    assert run.scores["val_crop_pixel_accuracy"] > 0.85
    rows = (tmp_path / "run" / "log.csv").read_text().splitlines()
    assert len(rows) == 6 and rows[0].startswith("epoch,loss,ce")
    picture = cv2.imread(str(tmp_path / "run" / "pictures" / "epoch-005.jpg"))
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
