"""Fake quantisation computes what the INT8 graph computes, trains, and leaves a checkpoint for the same graph."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from exported_networks import exports_kept
from tiny_networks import lively_network, register, tiny_recipe

from qanet.__main__ import main as qanet
from qanet.bundle import open_bundle
from qanet.datasets import PhotoFolder
from qanet.errors import QanetError
from qanet.export.command import export_checkpoint
from qanet.labels import CCP13
from qanet.train.qat import (
    fake_quantise,
    fake_quantise_weight,
    fine_tuning,
    quantise_forward,
    read_scales,
    train_quantised,
)
from qanet.train.weights import load_weights, save_weights

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        register(patch)
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield tmp_path_factory.mktemp("qat")


def _bundle(folder, backbone, data):
    """A bundle of a tiny network, calibrated on the data set."""
    path = folder / f"{backbone}.qanet"
    if not path.exists():
        chosen = tiny_recipe(backbone)
        save_weights(folder / f"{backbone}.safetensors", lively_network(chosen), chosen, half=False)
        with exports_kept():
            export_checkpoint(folder / f"{backbone}.safetensors", path)
        assert qanet(["calibrate", str(path), "--data", str(data), "--method", "minmax", "--json"]) == 0
    return open_bundle(path)


@pytest.mark.parametrize("backbone", ["tiny-c", pytest.param("tiny-hrnet", marks=pytest.mark.slow)])
def test_the_network_computes_as_its_int8_graph(folder, small_ccp, backbone, capsys):
    bundle = _bundle(folder, backbone, small_ccp)
    network, _ = load_weights(folder / f"{backbone}.safetensors")
    crops = np.random.default_rng(0).integers(0, 256, (2, 8, 12, 3)).astype(np.uint8).repeat(8, 1).repeat(8, 2)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # Q and DQ as they are written
    feed = {"crops": crops, "box_scores": np.ones(2, np.float32)}
    int8, fp32 = (
        ort.InferenceSession(bundle.graph(p), options, ["CPUExecutionProvider"]).run(["logits"], feed)[0]
        for p in ("int8", "fp32")
    )
    quantise_forward(network, read_scales(bundle.graph("int8")))
    with torch.inference_mode():
        got = network(network.normalise(torch.from_numpy(crops)))[0].numpy()
    error, difference = (np.sqrt(((got - other) ** 2).mean()) for other in (int8, fp32))
    # What is left is values that round to the other side: adding 1e-7 to the biases of the graph does as much.
    assert error < 0.6 * difference, (error, difference)


@pytest.mark.slow
def test_a_few_steps_move_the_weights_and_the_same_graph_is_exported(folder, small_ccp, tmp_path, capsys):
    bundle = _bundle(folder, "tiny-c", small_ccp)
    data = PhotoFolder(small_ccp, CCP13, "train")
    lines = []
    weights = train_quantised(
        bundle,
        data,
        PhotoFolder(small_ccp, CCP13, "val"),
        tmp_path / "run",
        torch.device("cpu"),
        epochs=2,
        workers=1,
        report=lines.append,
    ).weights
    assert len(lines) == 2 and "val mIoU" in lines[-1]
    before, after = load_weights(folder / "tiny-c.safetensors")[0], load_weights(weights)[0]
    states = before.state_dict(), after.state_dict()
    assert states[0].keys() == states[1].keys()
    assert not torch.equal(states[0]["backbone.layer1.0.conv1.weight"], states[1]["backbone.layer1.0.conv1.weight"])
    for key in states[0]:
        if "running" in key:  # batch norms keep their statistics
            torch.testing.assert_close(states[0][key], states[1][key], rtol=2e-3, atol=1e-3)
    new = export_checkpoint(weights, tmp_path / "new.qanet")
    capsys.readouterr()
    assert qanet(["calibrate", str(new.path), "--scales", str(bundle.path / "scales.json"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["crops"] == 4
    graphs = [onnx.load_model_from_string(b.graph("int8")).graph for b in (bundle, open_bundle(new.path))]
    assert [[(n.op_type, n.name, list(n.input)) for n in g.node] for g in graphs][0] == [
        (n.op_type, n.name, list(n.input)) for n in graphs[1].node
    ]
    assert read_scales(bundle.graph("int8")) == read_scales(open_bundle(new.path).graph("int8"))


def test_gradients_pass_straight_through_and_stop_where_it_clips():
    x = torch.tensor([-30.0, -0.26, 0.24, 1.0, 30.0], requires_grad=True)
    y = fake_quantise(x, 0.1)
    torch.testing.assert_close(y, torch.tensor([-12.8, -0.3, 0.2, 1.0, 12.7]))
    y.sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 1, 0]
    assert fake_quantise(x.detach().bfloat16(), 0.1).dtype == torch.bfloat16


def test_weights_keep_their_channels_steps_and_zeros():
    weight = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1e-3, 1, 50, 0]).view(
        -1, 1, 1, 1
    )
    got = fake_quantise_weight(weight)
    step = weight.abs().flatten(1).amax(1).view(-1, 1, 1, 1) / 127
    assert ((got - weight).abs() <= 0.501 * step).all()
    assert not got[3].any() and all(len(got[i].unique()) > 15 for i in range(3))


def test_a_graph_of_another_network_is_refused(folder, small_ccp):
    bundle = _bundle(folder, "tiny-c", small_ccp)
    network = lively_network(dataclasses.replace(tiny_recipe("tiny-basic"), name="other"))
    quantise_forward(network, read_scales(bundle.graph("int8")))
    with pytest.raises(QanetError, match="of another network"):
        network(torch.zeros(1, 3, 64, 96))


def test_what_cannot_be_fine_tuned_says_what_to_do(folder, small_ccp, tiny_bundle, tmp_path, capsys):
    assert qanet(["qat", str(tiny_bundle), "--data", str(small_ccp)]) == 2
    assert "qanet calibrate" in capsys.readouterr().err
    bundle = _bundle(folder, "tiny-c", small_ccp)
    assert qanet(["qat", str(bundle.path), "--data", str(small_ccp), "--epochs", "0"]) == 2
    with pytest.raises(QanetError, match="has no Q/DQ"):
        read_scales(bundle.graph("fp32"))
    with pytest.raises(QanetError, match="cannot be read"):
        read_scales(b"\x08not a graph")


def test_fine_tuning_is_short_and_slow():
    recipe = tiny_recipe("tiny-c")
    tuned = fine_tuning(recipe, 2)
    assert (tuned.epochs, tuned.lovasz_from, tuned.pretrained) == (2, 0.0, False)
    assert tuned.learning_rate < recipe.learning_rate / 10
    assert fine_tuning(recipe, 1, 3e-4).learning_rate == 3e-4
