"""Two processes, started as torchrun starts them, train one run together (gloo, on the CPU)."""

import json
import os
import subprocess
import sys

import pytest
import torch

from qanet.errors import QanetError
from qanet.train.distributed import World, join_world
from qanet.train.run import train
from qanet.train.weights import load_state

SETTINGS = {
    "input_hw": "64x64",
    "batch_size": "4",
    "epochs": "2",
    "width": "16",
    "iou_hidden": "16",
    "backbone": "lite0-slim",
    "pretrained": "false",
    "amp": "off",
}


def torchrun(processes, data, folder):
    """The finished process of `qanet train` under torchrun."""
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--master-port", "0"]
    start += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    settings = [f"{key}={value}" for key, value in SETTINGS.items()]
    command = ["-m", "qanet", "train", "ccp13-lite0", *settings, "--data", str(data), "--output", str(folder)]
    options = ["--device", "cpu", "--workers", "1", "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([*start, *command, *options], capture_output=True, text=True, timeout=300, env=environment)


@pytest.mark.slow
def test_two_processes_train_one_run(small_ccp, tmp_path):
    done = torchrun(2, small_ccp, tmp_path / "two")
    assert done.returncode == 0, done.stderr
    assert "2 processes" in done.stderr and done.stderr.count("epoch 1/2") == 1  # one of them reports
    assert json.loads(done.stdout)["epochs"] == 2
    state = load_state(tmp_path / "two" / "last.pt")
    assert state["epoch"] == 2
    assert all(torch.isfinite(v).all() for v in state["model"].values())
    # The mean gradient of the two halves is not the whole batch's: batch norm sees half of it. But the samples are.
    train("ccp13-lite0", small_ccp, tmp_path / "one", device="cpu", workers=1, report=lambda _: None, **SETTINGS)
    losses = [(tmp_path / name / "log.csv").read_text().splitlines()[1].split(",")[1] for name in ("one", "two")]
    assert float(losses[0]) == pytest.approx(float(losses[1]), rel=0.1)


def test_a_process_alone_needs_no_group(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    world, device = join_world("cpu")
    assert world == World() and world.is_main and device.type == "cpu"
    model = torch.nn.Linear(1, 1)
    assert world.parallel(model, device, sync_bn=False) is model
    assert world.sum(torch.ones(2)).tolist() == [1, 1]


@pytest.mark.parametrize("name", ["gpu", "cuda:99"])
def test_a_device_that_is_not_there_is_an_error(name):
    with pytest.raises(QanetError, match="no such device"):
        join_world(name)


def test_sync_bn_needs_gpus():
    with pytest.raises(QanetError, match="sync_bn needs GPUs"):
        World(0, 2).parallel(torch.nn.Linear(1, 1), torch.device("cpu"), sync_bn=True)
