"""A run with a teacher on the mild crops: its divergence falls, it resumes, and what does not fit is refused."""

import re

import numpy as np
import pytest
import torch
from exported_networks import exports_kept

from qanet.benchmarks.lab import distil_parser
from qanet.errors import QanetError
from qanet.export.command import export_checkpoint
from qanet.train.networks import build
from qanet.train.recipes import recipe
from qanet.train.weights import load_weights, save_weights

SETTINGS = {"input_hw": "64x64", "pretrained": "false"}
RUN = ["batch_size=6", "epoch_people=24", "frozen_stages=0", "learning_rate=2e-3", "warmup_share=0", "amp=off"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    settings = recipe("ccp13-lite0", SETTINGS)
    path = tmp_path_factory.mktemp("distil") / "start.safetensors"
    save_weights(path, build(settings), settings)
    return path


@pytest.fixture(scope="module")
def teacher(checkpoint):
    with exports_kept():
        return export_checkpoint(checkpoint, checkpoint.with_name("teacher")).path


@pytest.fixture
def arguments(checkpoint, teacher, small_ccp, silhouettes, tmp_path):
    return [
        *("ccp13-lite0", "--data", str(small_ccp), "--teacher", str(teacher), "--people", str(silhouettes), "0.5"),
        *("--initial-weights", str(checkpoint), "--output", str(tmp_path / "run")),
        *(f"{key}={value}" for key, value in SETTINGS.items()),
        *RUN,
    ]


def test_a_run_learns_keeps_its_epochs_and_goes_on(arguments, tmp_path, capsys):
    assert distil_parser.main([*arguments, "epochs=2", "schedule=level"]) == 0
    divergences = [float(v) for v in re.findall(r"teacher ([0-9.]+)", capsys.readouterr().err)]
    assert len(divergences) == 2 and all(np.isfinite(divergences)) and max(divergences) > 0
    kept = sorted(path.name for path in (tmp_path / "run" / "epochs").iterdir())
    assert kept == ["001.safetensors", "002.safetensors"]
    assert distil_parser.main([*arguments, "epochs=2", "schedule=level"]) == 0  # had finished
    network, _ = load_weights(tmp_path / "run" / "model.safetensors")
    assert all(torch.isfinite(parameter).all() for parameter in network.parameters())


def test_a_batch_has_hard_crops_and_then_the_mild_ones(arguments, small_ccp, silhouettes, tmp_path):
    from qanet.datasets import open_dataset
    from qanet.train.data.people import Mixture, PeopleFolder

    chosen = recipe("ccp13-lite0", SETTINGS | {"batch_size": "6", "epoch_people": "12", "spoil_probability": "1"})
    data = open_dataset(small_ccp, "ccp", chosen.labels, "train")
    mixture = Mixture(data, [PeopleFolder(silhouettes, data.label_set)], [0.5])
    batches = list(distil_parser.HardAndMild(mixture, chosen, 1, tmp_path, None).epoch(0))
    assert [len(batch.crops) for batch in batches] == [6] * len(batches) and len(batches) >= 2
    names = set(data.image_names)
    assert all(name.split("/")[-1].split(".")[0] in names for batch in batches for name in batch.names[-4:])


@pytest.mark.parametrize("input_hw", ["96x64", "32x32"])
def test_a_teacher_of_another_crop_teaches_every_crop(arguments, input_hw, tmp_path, capsys):
    other = [word.replace("input_hw=64x64", f"input_hw={input_hw}") for word in arguments]
    assert distil_parser.main([*other, "epochs=1", "--teach", "all"]) == 0
    assert float(re.search(r"teacher ([0-9.]+)", capsys.readouterr().err)[1]) > 0
    _, trained = load_weights(tmp_path / "run" / "model.safetensors")
    assert trained.input_hw == tuple(map(int, input_hw.split("x")))


def test_a_crop_that_is_reduced_keeps_its_mean_and_its_order():
    crops = torch.arange(2 * 6 * 6 * 3, dtype=torch.uint8).reshape(2, 6, 6, 3)
    small = distil_parser.reduced(crops, (4, 4))
    assert small.shape == (2, 4, 4, 3) and small.dtype == torch.uint8
    assert (small.float().mean((1, 2)) - crops.float().mean((1, 2))).abs().max() < 1
    assert distil_parser.reduced(crops, (6, 6)) is crops


def test_a_batch_that_has_no_room_is_refused(arguments):
    with pytest.raises(QanetError, match="the batch is too small .expected batch_size above 4, got 4"):
        distil_parser.main([word.replace("batch_size=6", "batch_size=4") for word in arguments])
