"""Checkpoints: written and read, taken over, frozen, averaged, and refused where they are broken."""

import dataclasses

import pytest
import torch

from qanet.datasets import PhotoFolder
from qanet.errors import QanetError
from qanet.labels import CCP13, CCP59
from qanet.train.networks import build
from qanet.train.recipes import recipe
from qanet.train.trainer import Trainer
from qanet.train.weights import frozen_modules, load_state, load_weights, main, save_weights, take_over

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


SETTINGS = {"input_hw": "64x64", "pretrained": "false"}


def write_checkpoint(path, seed, **settings):
    torch.manual_seed(seed)
    chosen = recipe("ccp13-lite0", {**SETTINGS, **settings})
    save_weights(path, build(chosen), chosen)
    return load_weights(path)[0].state_dict()


def test_the_mean_is_weighted(tmp_path):
    a, b = (write_checkpoint(tmp_path / f"{name}.safetensors", seed) for seed, name in enumerate("ab"))
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
    write_checkpoint(tmp_path / "a.safetensors", 0)
    write_checkpoint(tmp_path / "b.safetensors", 0, width="32")
    with pytest.raises(QanetError, match="wrong shape"):
        main([f"{tmp_path}/a.safetensors:1", f"{tmp_path}/b.safetensors:1", "--output", str(tmp_path / "c")])


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
