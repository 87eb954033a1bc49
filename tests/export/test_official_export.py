"""`qanet export OFFICIAL.pth`: from a file such as the official code writes to parsed people."""

import json
import re

import numpy as np
import pytest
import torch
from exported_networks import exports_kept
from tiny_networks import lively_network, register, tiny_recipe

import qanet
from qanet.__main__ import main
from qanet.bundle import open_bundle
from qanet.train.official import official_name
from qanet.train.recipes import RECIPES
from qanet.train.weights import load_weights


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """(folder, network): model_latest.pth of a small ResNet-c with FPN; its recipe is called tiny-official."""
    folder = tmp_path_factory.mktemp("official")
    with pytest.MonkeyPatch.context() as patch:
        register(patch)
        patch.setitem(RECIPES, "tiny-official", tiny_recipe("tiny-c", "tiny-official"))
        network = lively_network(RECIPES["tiny-official"])
        weights = {f"module.{official_name(k)}": v for k, v in network.state_dict().items()}
        optimizer = {"state": {0: {"step": 5, "exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 7.5e-4}]}
        torch.save(
            {"model": weights, "optimizer": optimizer, "scheduler": {"iteration": 9}}, folder / "model_latest.pth"
        )
        yield folder, network


@pytest.fixture(scope="module")
def bundle(official):
    folder, _ = official
    arguments = ["export", str(folder / "model_latest.pth"), "--recipe", "tiny-official", "--output"]
    with exports_kept():
        assert main([*arguments, str(folder / "official.qanet")]) == 0
    return open_bundle(folder / "official.qanet")


def test_the_bundle_holds_the_network_whole(official, bundle):
    bundle.verify()
    assert bundle.manifest["made"]["recipe"]["name"] == "tiny-official" and bundle.input_hw == (64, 96)
    network, recipe = load_weights(bundle.path / "model.safetensors")
    assert recipe.name == "tiny-official"
    for (key, ours), theirs in zip(network.state_dict().items(), official[1].state_dict().values()):
        assert torch.equal(ours, theirs), key  # FP32, not halved
    assert not list(bundle.path.glob(".*"))


def test_the_bundle_is_built_and_parses(official, bundle, capsys):
    assert main(["build", str(bundle.path), "--runtime", "openvino", "--precision", "fp32", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["engines"][0]["precision"] == "fp32"
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    parser = qanet.load(bundle.path, device="cpu", threads=1)
    people = parser(image, boxes=np.array([[9.6, 6.4, 86.4, 57.6]], np.float32), box_scores=np.ones(1, np.float32))
    with torch.inference_mode():  # the box grown by 1.25 is the whole image: the crop is the image
        _, iou = official[1](official[1].normalise(torch.from_numpy(image[None])))
    (person,) = people
    assert person.iou_score == pytest.approx(float(iou.clamp(0, 1)), abs=1e-3)
    assert people.labels.shape == (64, 96) and people.labels.max() < 13


def test_inspect_tells_the_size_of_a_bundle_and_of_an_official_file(official, bundle, capsys):
    assert main(["inspect", str(bundle.path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert main(["inspect", str(official[0] / "model_latest.pth"), "--json"]) == 0
    file = json.loads(capsys.readouterr().out)
    assert file["fits"] == ["tiny-official"]
    assert file["parts"]["total"]["multiply_adds"] == document["multiply_adds"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model_latest.pth"], "names no recipe .*next: add --recipe tiny-official"),
        (
            ["model_latest.pth", "--recipe", "ccp13-r18"],
            "Conv_Body.conv1.weight has the wrong shape.*next: it fits --recipe tiny-official",
        ),
        (["model_latest.pth", "--recipe", "tiny-oficial"], "unknown recipe .*tiny-official"),
        (["nothing.pth", "--recipe", "tiny-official"], "no checkpoint at"),
        (["text.pth", "--recipe", "tiny-official"], "not a PyTorch checkpoint|refused"),
        (["model_latest.pth", "--recipe", "tiny-official", "--input-size", "65x64"], "multiples of 32"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(official, tmp_path, capsys, arguments, message):
    folder, _ = official
    (folder / "text.pth").write_text("no weights")
    given = ["export", str(folder / arguments[0]), *arguments[1:], "--output", str(tmp_path / "x.qanet")]
    assert main(given) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and "\n" not in error
    assert re.search(message, error), error
    assert not (tmp_path / "x.qanet").exists()
