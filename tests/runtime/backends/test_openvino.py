"""OpenVINO's facts for all rooms: compile options, errors, and the layers that a compiled graph executes."""

import sys

import pytest
from engine_graphs import make_graph

from qanet.errors import QanetError
from qanet.runtime.backends.base import GRAPH_TAIL_OUTPUTS, KERNEL_TAIL_OUTPUTS, has_tail
from qanet.runtime.backends.openvino import PRODUCTS, compile_config, compile_graph, executed_layers, openvino_core


@pytest.fixture(scope="module")
def graph():
    return make_graph("fp32").SerializeToString(deterministic=True)


def test_options_are_only_those_that_were_given():
    assert compile_config() == {"PERFORMANCE_HINT": "LATENCY"}
    assert compile_config("bf16", 2, counters=True) == {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "bf16",
        "INFERENCE_NUM_THREADS": 2,
        "PERF_COUNT": True,
    }


def test_only_outputs_beyond_logits_and_iou_make_a_tail():
    assert has_tail(None) and has_tail(GRAPH_TAIL_OUTPUTS)
    assert not has_tail(KERNEL_TAIL_OUTPUTS) and not has_tail(("logits",))


def test_the_layers_of_a_compiled_graph_name_their_nodes_and_types(graph):
    layers = executed_layers(compile_graph(graph, "f32", KERNEL_TAIL_OUTPUTS))
    products = [layer for layer in layers if layer.kind in PRODUCTS]
    assert products and {layer.precision for layer in products} == {"fp32"}
    assert all(layer.name and layer.kind not in ("Const", "Input", "Output") for layer in layers)
    assert all(layer.origins for layer in products)


def test_what_cannot_be_compiled_is_named(graph):
    with pytest.raises(QanetError, match="OpenVINO cannot compile model.onnx .got "):
        compile_graph(graph[: len(graph) // 2], "f32", name="model.onnx")
    with pytest.raises(QanetError, match="the graph has no output depth .expected logits, depth, got logits"):
        compile_graph(graph, "f32", ("logits", "depth"))


def test_without_openvino_the_next_command_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(QanetError, match="OpenVINO is not installed .*; next: pip install openvino"):
        openvino_core()
