"""Official networks: tensor by tensor, value by value, and sizes as published."""

import numpy as np
import pytest
import torch
from official_weights import GOLDEN_NETWORKS, formula_tensor, formula_weights, key_list

from qanet.train.describe import network_size
from qanet.train.networks import build
from qanet.train.official import load_official, official_name, our_name
from qanet.train.recipes import recipe


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
