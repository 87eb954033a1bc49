"""What `qanet inspect` says of recipes and checkpoints."""

import pytest
import torch
from official_weights import hollow_weights

from qanet.errors import QanetError
from qanet.train.describe import describe_network
from qanet.train.networks import build
from qanet.train.recipes import recipe
from qanet.train.weights import save_state, save_weights


@pytest.fixture(scope="module")
def small():
    return recipe("celebamask19-lite0", {"width": "8", "iou_hidden": "8", "input_hw": "64x64"})


def test_our_own_checkpoints_name_their_recipe(small, tmp_path):
    save_weights(tmp_path / "model.safetensors", build(small), small)
    save_state(tmp_path / "last.pt", {"recipe": small.to_json(), "epoch": 4})
    weights = describe_network(str(tmp_path / "model.safetensors"))
    state = describe_network(str(tmp_path / "last.pt"))
    assert weights["recipe"] == state["recipe"] and weights["recipe"]["width"] == 8
    assert weights["parts"] == state["parts"] and state["epoch"] == 4


def test_an_official_checkpoint_says_what_it_fits(golden, tmp_path):
    path = tmp_path / "model_latest.pth"
    torch.save({"model": hollow_weights(golden, "r50c_cihp_512x384")}, path)
    document = describe_network(str(path))
    assert document["fits"] == ["cihp-r50c-512x384", "lip-r50c-512x384"]
    assert document["parts"]["total"]["parameters"] == 31_471_733


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("nowhere", None, "no bundle, checkpoint or recipe 'nowhere'"),
        ("photo.png", lambda p: p.write_bytes(b"no tensors"), "not a safetensors checkpoint"),
        ("last.pt", lambda p: p.write_bytes(b"no tensors"), "not a run's state"),
        ("last.pt", lambda p: torch.save({"epoch": 1}, p), "not a run's state"),
        ("model.pth", lambda p: torch.save({"fc.weight": torch.zeros(2, 3)}, p), "fits no recipe"),
    ],
)
def test_what_cannot_be_described_is_an_error(tmp_path, name, write, message):
    if write is not None:
        write(tmp_path / name)
    with pytest.raises(QanetError, match=message):
        describe_network(str(tmp_path / name) if write else name)
