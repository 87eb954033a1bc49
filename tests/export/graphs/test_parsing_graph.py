"""The exported graph: its contract, its equality with the network, and its quality module."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from exported_networks import SIZE, exported, exports_kept
from tiny_networks import register

from qanet.errors import QanetError
from qanet.export.command import export_checkpoint
from qanet.export.graphs.network import INPUTS, OUTPUTS, ParsingGraph, to_onnx
from qanet.quality import clamp_iou, fuse_quality, pixel_score
from qanet.train.weights import save_weights


@pytest.fixture(scope="module")
def network():
    return exported("lite0").network


@pytest.fixture(scope="module")
def graph():
    return exported("lite0").graph


def test_the_contract(graph):
    model = onnx.load_model_from_string(graph)
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    assert [(i.name, i.type) for i in session.get_inputs()] == [
        ("crops", "tensor(uint8)"),
        ("box_scores", "tensor(float)"),
    ]
    assert session.get_inputs()[0].shape[1:] == [*SIZE, 3] and isinstance(session.get_inputs()[0].shape[0], str)
    shapes = {o.name: o.shape[1:] for o in session.get_outputs()}
    assert tuple(shapes) == OUTPUTS
    assert shapes == {
        "logits": [13, 16, 24],
        "labels": [64, 96],
        "pixel_scores": [],
        "part_scores": [12],
        "iou_scores": [],
        "quality": [],
        "part_quality": [12],
    }
    assert session.get_outputs()[1].type == "tensor(uint8)"
    assert model.opset_import[0].version <= 19
    assert not any(node.op_type in ("ArgMax", "BatchNormalization", "GridSample") for node in model.graph.node)


def test_names_come_from_the_modules_and_are_unique(graph):
    names = [node.name for node in onnx.load_model_from_string(graph).graph.node]
    assert "backbone.blocks.3.expand" in names and "backbone.blocks.3.expand.relu6" in names
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("count", [1, 3])
def test_torch_and_onnx_runtime_agree(network, graph, count):
    rng = np.random.default_rng(count)
    crops = rng.integers(0, 256, (count, *SIZE, 3), np.uint8)
    boxes = rng.uniform(0.1, 1, count).astype(np.float32)
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    got = session.run(list(OUTPUTS), dict(zip(INPUTS, (crops, boxes))))
    with torch.inference_mode():
        expected = ParsingGraph(network).eval()(torch.from_numpy(crops), torch.from_numpy(boxes))
    for name, a, b in zip(OUTPUTS, expected, got):
        if name == "labels":
            assert (a.numpy() != b).mean() < 1e-3
        else:
            np.testing.assert_allclose(a.numpy(), b, atol=2e-3, err_msg=name)


def test_the_graph_tail_is_the_reference_on_a_crop_pasted_one_to_one(network):
    torch.manual_seed(2)
    logits = 4 * torch.randn(2, 13, 16, 24)
    tail = ParsingGraph(network)
    labels, pixel, part = tail._scores(torch.nn.functional.interpolate(logits, scale_factor=4, mode="bilinear"))
    boxes = np.tile(np.array([0, 0, SIZE[1], SIZE[0]], np.float32), (2, 1))
    reference = pixel_score(logits.numpy(), boxes, SIZE)
    for index in range(2):
        assert (labels[index].numpy() != reference.labels[index]).mean() < 1e-3
    np.testing.assert_allclose(pixel.numpy(), reference.pixel_scores, atol=1e-5)
    np.testing.assert_allclose(part.numpy(), reference.part_scores, atol=2e-4)
    box, iou = np.array([0.9, 0.4], np.float32), np.array([-0.2, 1.3], np.float32)
    fused = tail._fuse(torch.from_numpy(box), torch.from_numpy(iou).clamp(0, 1), pixel)
    np.testing.assert_allclose(fused.numpy(), fuse_quality(box, clamp_iou(iou), reference.pixel_scores), atol=1e-5)


def test_the_export_is_deterministic():
    _, network, graph = exported("tiny-basic")
    assert to_onnx(ParsingGraph(network), OUTPUTS, SIZE) == graph


def test_a_checkpoint_becomes_a_bundle(tmp_path, monkeypatch):
    register(monkeypatch)
    recipe, network, _ = exported("tiny-basic")
    checkpoint = tmp_path / "model.safetensors"
    save_weights(checkpoint, network, recipe)
    with exports_kept():
        bundle = export_checkpoint(checkpoint, tmp_path / "mine", input_hw=(64, 64))
    bundle.verify()
    assert bundle.path.name == "mine.qanet" and bundle.input_hw == (64, 64)
    assert set(bundle.manifest["files"]) == {"model.onnx", "model.safetensors", "answers.npz"}
    with pytest.raises(QanetError, match="another recipe"):
        export_checkpoint(checkpoint, tmp_path / "other", recipe_name="ccp59-lite0")
    with pytest.raises(QanetError, match="multiples of 32"):
        export_checkpoint(checkpoint, tmp_path / "other", input_hw=(65, 64))
    assert not (tmp_path / "other.qanet").exists()
    (tmp_path / "taken.qanet").mkdir()
    (tmp_path / "taken.qanet" / "notes.txt").write_text("mine")
    with pytest.raises(QanetError, match="not a bundle"):
        export_checkpoint(checkpoint, tmp_path / "taken.qanet")
