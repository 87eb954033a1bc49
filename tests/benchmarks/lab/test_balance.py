"""Logit adjustment: rare classes are raised by the logarithm of their share."""

import numpy as np
import pytest

from qanet.benchmarks.lab import balance
from qanet.errors import QanetError
from qanet.labels import CCP13
from qanet.train.networks import build
from qanet.train.recipes import recipe
from qanet.train.weights import load_weights, save_weights


@pytest.mark.parametrize(
    ("pixels", "tau", "expected"),
    [
        ([900, 100, 0], 0.0, [0, 0, 0]),
        ([900, 100, 0], 1.0, [-np.log(0.9), -np.log(0.1), 0]),
        ([900, 100, 0], 0.5, [-np.log(0.9) / 2, -np.log(0.1) / 2, 0]),
        ([10**9, 1, 0], 1.0, [0, -np.log(1e-5), 0]),
    ],
)
def test_the_change_of_the_bias(pixels, tau, expected):
    np.testing.assert_allclose(balance.bias_change(np.array(pixels), tau), expected, atol=1e-6)


def test_tau_has_bounds():
    with pytest.raises(QanetError, match="bad tau"):
        balance.bias_change(np.array([1, 1]), 1.5)


def test_only_the_bias_of_the_checkpoint_changes(small_ccp, tmp_path):
    settings = recipe("ccp13-lite0", {"width": "16", "iou_hidden": "16", "pretrained": "false"})
    save_weights(tmp_path / "old.safetensors", build(settings), settings)
    arguments = [str(tmp_path / "old.safetensors"), "--data", str(small_ccp), "--tau", "1"]
    assert balance.main([*arguments, "--output", str(tmp_path / "new.safetensors")]) == 0
    old, new = (load_weights(tmp_path / f"{name}.safetensors")[0].state_dict() for name in ("old", "new"))
    changed = [key for key in old if not old[key].equal(new[key])]
    assert changed == ["parsing_head.classify.bias"]
    risen = (new[changed[0]] - old[changed[0]]).numpy()
    pants, background, belt = (CCP13.classes.index(name) for name in ("pants", "background", "belt"))
    assert risen[pants] > risen[background] > 0 and risen[belt] == 0  # 40 x 40 pixels; most; none
