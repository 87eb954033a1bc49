"""The graphs of ResNet and HRNet: names, equality with the network, size, placement of INT8."""

import onnx
import pytest
from exported_networks import SIZE, exported
from tiny_networks import register

from qanet.calib.placement import load_model, place
from qanet.errors import QanetError
from qanet.export.graphs.network import OUTPUTS, ParsingGraph, check_parity
from qanet.export.graphs.source import graph_size
from qanet.train.describe import network_size

# Names that each graph has.
NAMES = {
    "tiny-basic": ("backbone.stem.conv1", "backbone.stem.conv1.relu.pool", "backbone.layer2.0.conv2.sum.relu"),
    "tiny-d": ("backbone.layer1.0.conv3", "backbone.layer2.0.downsample.1", "fpn.laterals.2.sum"),
    "tiny-hrnet": (
        "backbone.transition1.1.0",
        "backbone.stage4.0.fuse_layers.0.3.up",
        "backbone.stage4.0.fuse_layers.3.0.2",
    ),
}


@pytest.fixture(autouse=True)
def tiny_backbones(monkeypatch):
    register(monkeypatch)


@pytest.mark.parametrize("family", NAMES)
def test_the_graph_keeps_the_contract_and_is_named_after_the_modules(family):
    graph = onnx.load_model_from_string(exported(family).graph).graph
    names = [node.name for node in graph.node]
    assert len(set(names)) == len(names)
    assert set(NAMES[family]) <= set(names)
    parts = ("backbone.", "fpn.", "neck.", "iou_head.")
    for node in graph.node:
        if node.op_type in ("Conv", "Relu", "Clip", "Add", "MaxPool", "AveragePool") and "." in node.input[0]:
            assert node.name.startswith(parts) or node.name == "logits", node.name
    assert [output.name for output in graph.output] == list(OUTPUTS)
    assert not any(node.op_type == "BatchNormalization" for node in graph.node)


@pytest.mark.parametrize("family", NAMES)
def test_the_graph_equals_the_network(family):
    _, network, graph = exported(family)
    differences = check_parity(ParsingGraph(network), OUTPUTS, SIZE, graph)
    assert set(differences) == set(OUTPUTS)


@pytest.mark.parametrize("family", NAMES)
def test_graph_and_network_count_the_same_multiply_adds(family):
    recipe, network, graph = exported(family)
    size = graph_size(graph)
    assert size["multiply_adds"] == network_size(recipe, SIZE)["total"].multiply_adds
    norms = sum(m.num_features for m in network.modules() if type(m).__name__ == "BatchNorm2d")
    parameters = sum(p.numel() for p in network.parameters())
    assert size["parameters"] == parameters - norms  # weight and bias of a norm become one bias of its convolution


@pytest.mark.parametrize("family", NAMES)
def test_int8_reaches_every_convolution_but_those_that_stay_float(family):
    model = load_model(exported(family).graph)
    placement = place(model)
    nodes = model.graph.node
    left = {n.name for i, n in enumerate(nodes) if n.op_type == "Conv" and i not in placement.convolutions}
    assert {"logits", "iou_head.reduce"} <= left
    assert all(name.startswith(("logits", "iou_head.", "backbone.stem")) for name in left)
    producer = {output: node for node in nodes for output in node.output}
    for name, readers in placement.readers.items():  # never between a convolution or a sum and its activation
        after = {nodes[index].op_type for index, _ in readers}
        assert not after & {"Relu", "Clip"}, name
    residual = [n for n in nodes if n.op_type == "Add" and n.name.startswith("backbone.") and n.input[0] in producer]
    quantised = {index for readers in placement.readers.values() for index, _ in readers}
    assert residual and all(nodes[i] not in residual or i in quantised for i in range(len(nodes)))


def test_bytes_that_are_no_graph_are_refused():
    with pytest.raises(QanetError, match="not an ONNX graph"):
        graph_size(b"\xff\xff no graph")
