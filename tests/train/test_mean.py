"""The mean of checkpoints: shares, batch-norm statistics, networks that differ."""

import pytest
import torch

from qanet.errors import QanetError
from qanet.train.networks import build
from qanet.train.recipes import recipe
from qanet.train.weights import load_weights, main, save_weights

SETTINGS = {"input_hw": "64x64", "pretrained": "false"}


def checkpoint(path, seed, **settings):
    torch.manual_seed(seed)
    chosen = recipe("ccp13-lite0", {**SETTINGS, **settings})
    save_weights(path, build(chosen), chosen)
    return load_weights(path)[0].state_dict()


def test_the_mean_is_weighted(tmp_path):
    a, b = (checkpoint(tmp_path / f"{name}.safetensors", seed) for seed, name in enumerate("ab"))
    command = [f"{tmp_path}/a.safetensors:1", f"{tmp_path}/b.safetensors:3", "--output", f"{tmp_path}/c.safetensors"]
    assert main(command) == 0
    c = load_weights(tmp_path / "c.safetensors")[0].state_dict()
    for key in ("backbone.stem.0.weight", "neck.levels.0.0.bn.running_var"):
        torch.testing.assert_close(c[key], 0.25 * a[key] + 0.75 * b[key], atol=2e-3, rtol=0)


@pytest.mark.parametrize("given", [["a:1"], ["a:1", "b:0"], ["a:1", "b"]])
def test_too_few_or_bad_shares_are_refused(given, tmp_path):
    with pytest.raises(QanetError, match="bad checkpoint"):
        main([*given, "--output", str(tmp_path / "c")])


def test_networks_that_differ_are_named(tmp_path):
    checkpoint(tmp_path / "a.safetensors", 0)
    checkpoint(tmp_path / "b.safetensors", 0, width="32")
    with pytest.raises(QanetError, match="wrong shape"):
        main([f"{tmp_path}/a.safetensors:1", f"{tmp_path}/b.safetensors:1", "--output", str(tmp_path / "c")])
