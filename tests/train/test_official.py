"""Official networks: tensor by tensor, value by value, and sizes as published."""

import os
import pickle
import sys
import types
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from official_weights import GOLDEN_NETWORKS, formula_tensor, formula_weights, hollow_weights, key_list

from qanet.errors import QanetError
from qanet.train.describe import network_size
from qanet.train.networks import build
from qanet.train.official import fitting_recipes, load_official, official_name, our_name, read_official
from qanet.train.recipes import Recipe, recipe


@pytest.mark.parametrize("network", GOLDEN_NETWORKS)
def test_every_tensor_has_its_official_name_and_shape_and_back(golden, network):
    keys = key_list(golden, network)["keys"]
    with torch.device("meta"):
        own = build(recipe(GOLDEN_NETWORKS[network])).state_dict()
    assert {our_name(k["key"]): tuple(k["shape"]) for k in keys} == {k: tuple(v.shape) for k, v in own.items()}
    assert {official_name(k): tuple(v.shape) for k, v in own.items()} == {k["key"]: tuple(k["shape"]) for k in keys}


@pytest.mark.parametrize("network", GOLDEN_NETWORKS)
def test_the_formula_of_the_tests_is_the_golden_one(golden, network):
    document = key_list(golden, network)
    for entry in document["keys"][:: len(document["keys"]) // 40]:
        value = formula_tensor(entry["key"], entry["shape"], document["gain"])
        assert float(value.flatten()[0]) == entry["first"], entry["key"]


@pytest.fixture(scope="module")
def official_network(golden, tmp_path_factory):
    """Network of a golden case, loaded from a file such as the official code writes; one at a time in memory."""
    loaded = {}

    def load(network):
        if network not in loaded:
            loaded.clear()
            path = tmp_path_factory.mktemp("official") / "model_latest.pth"
            weights = {f"module.{k}": v for k, v in formula_weights(golden, network).items()}
            state = {"state": {0: {"step": 3, "exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 1e-3, "params": [0]}]}
            scheduler = {"iteration": 7, "milestones": [90, 120], "info": {"best_acc": 0.0}}
            torch.save({"model": weights, "optimizer": state, "scheduler": scheduler}, path)
            loaded[network] = load_official(path, recipe(GOLDEN_NETWORKS[network]))
            path.unlink()
        return loaded[network]

    return load


@pytest.mark.parametrize(
    "case", ["r50c_cihp_512x384_n1_128x96", "r50c_cihp_512x384_n2_256x192", "hrnet_w48_lip_512x384_n1_128x96"]
)
def test_a_forward_gives_the_official_numbers(golden, official_network, case):
    network = official_network(case.rpartition("_n")[0])
    with np.load(golden / "model_forward" / f"{case}.npz") as arrays:
        data = dict(arrays)
    crops = np.ascontiguousarray(data["image"].transpose(0, 2, 3, 1)[..., ::-1])  # RGB planes -> BGR crops
    with torch.inference_mode():
        x = network.normalise(torch.from_numpy(crops))
        features = network.backbone(x)
        logits, iou = network(x)
    for level, feature in enumerate(features):
        found = (feature.mean().item(), feature.std().item())
        np.testing.assert_allclose(found, data["stage_stats"][level], rtol=1e-3, err_msg=f"stride {4 * 2**level}")
    expected = data["logits_quarter"]
    np.testing.assert_allclose(logits.numpy(), expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    np.testing.assert_allclose(iou.numpy(), data["parsing_iou"].reshape(-1), rtol=1e-4)
    full = torch.nn.functional.interpolate(logits, scale_factor=4, mode="bilinear", align_corners=False)
    sure = data["ambiguous"] == 0
    assert np.array_equal(full.argmax(1).numpy()[sure], data["labels_x4"][sure])


@pytest.mark.parametrize(
    ("name", "million_parameters", "giga_multiply_adds"),
    [
        ("cihp-r50c-512x384", 31.47, 42.66),
        ("cihp-r101d-512x384", 50.46, 57.21),
        ("cihp-w48-512x384", 69.22, 71.03),
        ("lip-w48-544x416", 72.42, 90.29),
    ],
)
def test_sizes_are_the_published_ones(name, million_parameters, giga_multiply_adds):
    size = network_size(recipe(name))["total"]
    assert round(size.parameters / 1e6, 2) == million_parameters
    assert size.multiply_adds / 1e9 == pytest.approx(giga_multiply_adds, abs=0.006)


SMALL = Recipe("small", "ccp13", "ccp", (64, 64), backbone="lite0-slim", width=8, iou_hidden=8)
STEM = "Conv_Body.stem.0.weight"


@pytest.fixture(scope="module")
def weights():
    """Official name -> tensor of the small network."""
    torch.manual_seed(0)
    return {official_name(k): v for k, v in build(SMALL).state_dict().items()}


def save(content, path):
    torch.save(content, path)
    return path


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("bare", [True, False])
@pytest.mark.parametrize("zipped", [True, False])
def test_every_form_of_a_file_is_read(weights, tmp_path, prefix, bare, zipped):
    model = {prefix + k: v for k, v in weights.items()}
    content = model if bare else {"model": model, "optimizer": {"state": {}}, "scheduler": {"iteration": 1}}
    torch.save(content, tmp_path / "m.pth", _use_new_zipfile_serialization=zipped)
    network = load_official(tmp_path / "m.pth", SMALL)
    assert not network.training
    for key, value in network.state_dict().items():
        assert torch.equal(value, weights[official_name(key)]), key


def test_the_settings_node_of_an_official_scheduler_is_read_without_its_package(weights, tmp_path, monkeypatch):
    package, module = types.ModuleType("yacs"), types.ModuleType("yacs.config")
    node = type("CfgNode", (dict,), {"__module__": "yacs.config"})
    module.CfgNode = node
    monkeypatch.setitem(sys.modules, "yacs", package)
    monkeypatch.setitem(sys.modules, "yacs.config", module)
    solver = node(STEPS=[90, 120], AMP=node(ENABLED=False))
    solver.__dict__["__immutable__"] = True
    path = save({"model": weights, "scheduler": {"solver": solver, "iteration": 3}}, tmp_path / "m.pth")
    monkeypatch.delitem(sys.modules, "yacs.config")
    monkeypatch.delitem(sys.modules, "yacs")
    assert set(read_official(path)) == set(weights)
    assert (OrderedDict, "yacs.config.CfgNode") not in torch.serialization.get_safe_globals()  # only while reading


class Bomb:
    """Unpickled the ordinary way it makes a folder: the sign that code of a file was run."""

    def __init__(self, sign, call=os.mkdir):
        self.sign, self.call = sign, call

    def __reduce__(self):
        return self.call, (str(self.sign),)


def _eval_bomb(sign):
    return Bomb(f"__import__('os').mkdir({str(sign)!r})", eval)


@pytest.mark.parametrize("make", [Bomb, _eval_bomb])
@pytest.mark.parametrize("place", ["whole", "scheduler", "model"])
@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_a_malicious_file_is_refused_and_nothing_runs(weights, tmp_path, make, place, form):
    sign, path = tmp_path / "sign", tmp_path / "evil.pth"
    bomb = make(sign)
    content = {"whole": bomb, "scheduler": {"model": weights, "scheduler": bomb}, "model": {"model": {STEM: bomb}}}[
        place
    ]
    if form == "pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(QanetError, match="refused|not a PyTorch checkpoint") as caught:
        load_official(path, SMALL)
    assert "\n" not in caught.value.line()
    assert not sign.exists()
    if form == "pickle":
        pickle.loads(path.read_bytes())
        assert sign.exists()  # the bomb is live: the ordinary way it does go off


def _truncated(path, weights):
    save({"model": weights}, path)
    path.write_bytes(path.read_bytes()[:100_000])


def _zip_of_text(path, weights):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("readme.txt", "no tensors here")


def _without(weights, *names):
    return {k: v for k, v in weights.items() if k not in names}


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda p, w: None, "no checkpoint at"),
        (lambda p, w: p.write_bytes(b""), "not a PyTorch checkpoint"),
        (lambda p, w: p.write_text("<html>sign in to the drive</html>"), "not a PyTorch checkpoint|refused"),
        (_truncated, "not a PyTorch checkpoint"),
        (_zip_of_text, "not a PyTorch checkpoint"),
        (lambda p, w: save([1, 2], p), "holds no model .*got list"),
        (lambda p, w: save({"state_dict": w}, p), "holds no model .*got a dict with state_dict"),
        (lambda p, w: save({"model": {}}, p), "holds no model"),
        (lambda p, w: save({"model": {STEM: 3}}, p), "holds no model"),
        (lambda p, w: save({"model": w, "ema": w}, p), "the state of a run.*next: export .*model.safetensors"),
        (lambda p, w: save(_without(w, STEM), p), f"lacks the tensor {STEM} .*expected \\(32, 3, 3, 3\\)"),
        (
            lambda p, w: save({**w, "Conv_Body.fc.bias": w[STEM]}, p),
            "a tensor that the network lacks: Conv_Body.fc.bias",
        ),
        (lambda p, w: save({**w, STEM: w[STEM][:16]}, p), f"{STEM} has the wrong shape .*got \\(16, 3, 3, 3\\)"),
        (
            lambda p, w: save({**w, "Parsing.Output.classify.bias": torch.zeros(20)}, p),
            "Parsing.Output.classify.bias has the wrong shape .*expected \\(13,\\), got \\(20,\\)",
        ),
    ],
    ids=[
        "absent",
        "empty",
        "web page",
        "truncated",
        "zip of text",
        "list",
        "unknown dict",
        "no tensors",
        "number",
        "state of a run",
        "missing",
        "extra",
        "misshapen",
        "other classes",
    ],
)
def test_a_bad_file_is_named_with_what_is_wrong(weights, tmp_path, write, message):
    path = tmp_path / "model.pth"
    write(path, weights)
    with pytest.raises(QanetError, match=message):
        load_official(path, SMALL)


@pytest.mark.parametrize(
    ("network", "wrong", "message"),
    [
        ("r50c_cihp_512x384", "cihp-r101d-512x384", "Conv_Body.layer1.0.downsample.1.weight has the wrong shape"),
        ("r50c_cihp_512x384", "cihp-w48-512x384", "lacks the tensor|wrong shape"),
        ("r50c_cihp_512x384", "ppp-r50c-512x384", "classify.weight has the wrong shape .*expected \\(7, 256, 1, 1\\)"),
        ("hrnet_w48_lip_512x384", "lip-w48-544x416", "wrong shape .*expected \\(384, .*got \\(256, "),
    ],
)
def test_a_file_of_another_recipe_says_which_ones_it_fits(golden, tmp_path, network, wrong, message):
    tensors = hollow_weights(golden, network)
    with pytest.raises(QanetError, match=f"{message}.*next: it fits --recipe .*{GOLDEN_NETWORKS[network]}"):
        load_official(save({"model": tensors}, tmp_path / "m.pth"), recipe(wrong))


def test_fitting_recipes_are_those_with_the_same_tensors(golden):
    assert fitting_recipes(hollow_weights(golden, "r50c_cihp_512x384")) == ["cihp-r50c-512x384", "lip-r50c-512x384"]
    assert fitting_recipes({"Conv_Body.conv1.weight": torch.zeros(1)}) == []


def test_the_suffix_of_a_file_does_not_matter(weights, tmp_path):
    assert set(read_official(save({"model": weights}, tmp_path / "cihp_r50"))) == set(weights)
