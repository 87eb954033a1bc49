"""The model in the repository: whole, small enough, what its checkpoint exports to, and the same in every runtime."""

import numpy as np
import onnx
import pytest

import qanet
from qanet.bundle import SHIPPED, open_bundle
from qanet.datasets import PhotoFolder
from qanet.export.command import export_checkpoint
from qanet.geometry import crop_boxes, crop_people
from qanet.runtime.backends import onnxruntime, openvino

NAME = "ccp13-lite0"


def test_it_is_whole_and_under_25_megabytes():
    bundle = open_bundle(NAME)
    bundle.verify()
    assert bundle.is_shipped
    assert sum(p.stat().st_size for p in (SHIPPED / f"{NAME}.qanet").rglob("*") if p.is_file()) < 25e6
    assert {"model.onnx", "model.safetensors", "scales.json"} <= set(bundle.manifest["files"])


@pytest.mark.slow
def test_its_checkpoint_exports_to_its_graph(tmp_path):
    shipped = open_bundle(NAME)
    again = export_checkpoint(shipped.path / "model.safetensors", tmp_path / NAME)
    ours, theirs = (onnx.load_model_from_string(b.read("model.onnx")) for b in (shipped, again))
    assert [n.op_type for n in ours.graph.node] == [n.op_type for n in theirs.graph.node]
    for a, b in zip(ours.graph.initializer, theirs.graph.initializer):
        assert a.name == b.name
        # The batch-norm folding is float arithmetic, which another CPU may round differently.
        np.testing.assert_allclose(
            onnx.numpy_helper.to_array(a), onnx.numpy_helper.to_array(b), rtol=1e-5, atol=1e-6, err_msg=a.name
        )


def photographs(shared, count):
    bundle = open_bundle(NAME)
    data = PhotoFolder(shared / "data" / "ccp", bundle.labels, "val")
    samples = [data[i] for i in range(count)]
    crops = [crop_people(s.image, crop_boxes(s.box[None], bundle.input_hw), bundle.input_hw) for s in samples]
    return np.concatenate(crops)


@pytest.mark.slow
def test_torch_onnx_runtime_and_openvino_agree_on_photographs(shared):
    import torch

    from qanet.export.graphs.network import ParsingGraph
    from qanet.train.weights import load_weights

    bundle = open_bundle(NAME)
    crops, boxes = photographs(shared, 4), np.array([1, 0.9, 0.5, 0.1], np.float32)
    graph = bundle.graph("fp32")
    network, _ = load_weights(bundle.path / "model.safetensors")
    with torch.inference_mode():
        outputs = ParsingGraph(network).eval()(torch.from_numpy(crops), torch.from_numpy(boxes))
    oracle = onnxruntime.engine_from_graph(graph, "fp32")
    expected = dict(zip(oracle.outputs, (o.numpy() for o in outputs)))
    for engine in (oracle, openvino.engine_from_graph(graph, "fp32")):
        got = engine.run(crops, boxes)
        assert (got["labels"] != expected["labels"]).mean() < 5e-4, engine.runtime
        for name in ("pixel_scores", "part_scores", "iou_scores", "quality", "part_quality"):
            np.testing.assert_allclose(got[name], expected[name], atol=5e-3, err_msg=f"{engine.runtime} {name}")
        np.testing.assert_allclose(got["logits"], expected["logits"], atol=2e-2, err_msg=engine.runtime)


@pytest.mark.slow
def test_it_parses_held_out_photographs(shared):
    parser = qanet.load(NAME)
    data = PhotoFolder(shared / "data" / "ccp", parser.bundle.labels, "val")
    right = total = 0
    for index in range(0, len(data), 20):
        sample = data[index]
        result = parser(sample.image, boxes=sample.box[None])
        valid = sample.labels != 255
        right += int((result.labels == sample.labels)[valid].sum())
        total += int(valid.sum())
        assert 0 < result[0].quality <= 1
    assert right / total > 0.9  # the whole split: docs/models
