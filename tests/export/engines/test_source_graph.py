"""The graph an engine is built from: what is cut off, named or refused, and its multiply-adds."""

import numpy as np
import pytest
from engine_graphs import CHANNELS, CLASSES, CONVOLUTIONS, HEIGHT, WIDTH, make_graph, onnx
from onnx import TensorProto, helper, numpy_helper

from qanet.errors import QanetError
from qanet.export.engines import source_graph
from qanet.export.engines.multiply_adds import ComputeNode, compute_nodes


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


def test_every_node_has_a_name_of_its_own_and_convolutions_keep_theirs(tmp_path):
    model = make_graph()
    for node in model.graph.node:
        node.name = {"Conv": node.name, "Relu": "", "Cast": "stem"}.get(node.op_type, "same")
    onnx.save(model, tmp_path / "model.onnx")
    named = source_graph.load_graph(tmp_path / "model.onnx")
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
def test_graphs_outside_the_contract_are_refused(tmp_path, change, message):
    model = make_graph()
    change(model)
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(QanetError, match=message):
        source_graph.load_graph(tmp_path / "model.onnx")


def test_files_and_outputs_that_are_not_there(tmp_path, graphs):
    with pytest.raises(QanetError, match="no such ONNX file"):
        source_graph.load_graph(tmp_path / "nothing.onnx")
    (tmp_path / "text.onnx").write_text("not a protobuf")
    with pytest.raises(QanetError, match=r"text\.onnx"):
        source_graph.load_graph(tmp_path / "text.onnx")
    with pytest.raises(QanetError, match="some of logits, iou_scores, quality, got masks"):
        source_graph.load_graph(graphs["fp32"], ["logits", "masks"])
