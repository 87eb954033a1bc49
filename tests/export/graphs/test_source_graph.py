"""The graph an engine is built from: what is cut off, named or refused, and its multiply-adds."""

import re

import numpy as np
import pytest
from cpu_types import needs_16_bits
from engine_graphs import CHANNELS, CLASSES, CONVOLUTIONS, HEIGHT, WIDTH, make_graph, needs_rtx, onnx
from onnx import TensorProto, helper, numpy_helper

from qanet.__main__ import main as qanet
from qanet.bundle import open_bundle
from qanet.errors import QanetError
from qanet.export.graphs import source as source_graph
from qanet.export.graphs.source import ComputeNode, compute_nodes


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_multiply_adds_are_those_of_the_float_graph(precision):
    half = (HEIGHT // 2) * (WIDTH // 2)
    assert compute_nodes(make_graph(precision)) == {
        "stem": ComputeNode("Conv", half * CHANNELS * 3 * 9),
        "body": ComputeNode("Conv", half * CHANNELS * CHANNELS * 9),
        "classify": ComputeNode("Conv", half * CLASSES * CHANNELS),
        "iou": ComputeNode("Gemm", CHANNELS),
    }


def test_multiply_adds_of_groups_transposes_and_products():
    def info(name, shape):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    nodes = [
        helper.make_node("Conv", ["x", "depthwise"], ["a"], "depthwise", group=8, pads=[1] * 4),
        helper.make_node("ConvTranspose", ["a", "up"], ["b"], "up", strides=[2, 2]),
        helper.make_node("MatMul", ["y", "b"], ["c"], "product"),
    ]
    weights = {"depthwise": (8, 1, 3, 3), "up": (8, 4, 2, 2)}
    tensors = [numpy_helper.from_array(np.zeros(shape, np.float32), name) for name, shape in weights.items()]
    inputs = [info("x", ["N", 8, 6, 6]), info("y", ["N", 4, 10, 12])]
    graph = helper.make_graph(nodes, "g", inputs, [info("c", ["N", 4, 10, 12])], tensors)
    found = compute_nodes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]))
    assert {name: node.multiply_adds for name, node in found.items()} == {
        "depthwise": 8 * 36 * 9,
        "up": 8 * 36 * 4 * 4,
        "product": 4 * 10 * 12 * 12,
    }


def test_a_cut_graph_loses_what_only_the_dropped_outputs_needed(graphs):
    model = source_graph.load_graph(graphs["fp32"], ("iou_scores", "logits"))
    assert [value.name for value in model.graph.output] == ["iou_scores", "logits"]
    assert [value.name for value in model.graph.input] == ["crops"]
    assert "fuse" not in {node.name for node in model.graph.node}
    assert "box_scores" in source_graph.input_shapes(source_graph.load_graph(graphs["fp32"], ["quality"]))


def test_every_node_has_a_name_of_its_own_and_convolutions_keep_theirs():
    model = make_graph()
    for node in model.graph.node:
        node.name = {"Conv": node.name, "Relu": "", "Cast": "stem"}.get(node.op_type, "same")
    named = source_graph.load_graph(model.SerializeToString())
    names = [node.name for node in named.graph.node]
    assert len(set(names)) == len(names) and "" not in names
    assert [node.name for node in named.graph.node if node.op_type == "Conv"] == list(CONVOLUTIONS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.graph.input[0].type.tensor_type.__setattr__("elem_type", TensorProto.FLOAT), "crops float of"),
        (lambda m: m.graph.input[0].__setattr__("name", "images"), "inputs of a parsing graph"),
        (lambda m: m.graph.input[0].type.tensor_type.shape.dim[1].__setattr__("dim_param", "H"), "only the batch"),
    ],
)
def test_graphs_outside_the_contract_are_refused(change, message):
    model = make_graph()
    change(model)
    with pytest.raises(QanetError, match=message):
        source_graph.load_graph(model.SerializeToString())


def test_text_and_outputs_that_are_not_there(graphs):
    with pytest.raises(QanetError, match=r"text\.onnx"):
        source_graph.load_graph(b"not a protobuf", name="text.onnx")
    with pytest.raises(QanetError, match="some of logits, iou_scores, quality, got masks"):
        source_graph.load_graph(graphs["fp32"], ["logits", "masks"])


def truncated(model):
    data = model.SerializeToString()
    return data[: len(data) // 2]


def newer_opset(model):
    model.opset_import[0].version = 99
    return model.SerializeToString()


def newer_format(model):
    model.ir_version = 99
    return model.SerializeToString()


def unknown_operator(model):
    model.graph.node[0].op_type = "Teleport"
    return model.SerializeToString()


def foreign_operator(model):
    relu = next(node for node in model.graph.node if node.op_type in ("Relu", "Conv"))
    relu.op_type, relu.domain = "FusedConv", "com.microsoft"
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    return model.SerializeToString()


def weights_elsewhere(model):
    tensor = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    size = len(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", "weights.bin"), ("offset", "0"), ("length", str(size))):
        tensor.external_data.add(key=key, value=value)
    return model.SerializeToString()


BROKEN = [
    (truncated, "cannot read model.onnx as ONNX .* bytes.; next: export it again"),
    (newer_opset, "model.onnx is newer than the onnx installed here .expected opset .* or older, got opset 99"),
    (newer_format, "newer than the onnx installed here .*IR version 99"),
    (unknown_operator, "unknown operator Teleport at node"),
    (foreign_operator, "unknown operator com.microsoft.FusedConv at node"),
    (weights_elsewhere, "has weights outside the file itself .expected .* inside, got weights.bin"),
]


@pytest.mark.parametrize(("break_it", "message"), BROKEN, ids=lambda value: getattr(value, "__name__", ""))
def test_a_graph_is_refused(break_it, message):
    with pytest.raises(QanetError, match=message):
        source_graph.load_graph(break_it(make_graph()))


def snapshot(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


RUNTIMES = [
    pytest.param("openvino", "fp16", marks=needs_16_bits),
    pytest.param("tensorrt-rtx", "fp32", marks=needs_rtx),
]


@pytest.mark.parametrize(("runtime", "precision"), RUNTIMES)
@pytest.mark.parametrize(("break_it", "message"), BROKEN, ids=lambda value: getattr(value, "__name__", ""))
def test_a_bundle_of_it_builds_nothing_and_is_left_alone(tiny_bundle, capsys, break_it, message, runtime, precision):
    bundle = open_bundle(tiny_bundle)  # the hash is right, the graph is not
    bundle.add_file("model.onnx", break_it(onnx.load_model_from_string(bundle.graph("fp32"))))
    bundle.add_engine("engines/old.blob", b"old", {"runtime": "openvino", "precision": "fp32"})
    bundle.save()
    before = snapshot(tiny_bundle)
    assert qanet(["build", str(tiny_bundle), "--runtime", runtime, "--precision", precision]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(message, error), error
    assert error.startswith("error: ") and snapshot(tiny_bundle) == before
