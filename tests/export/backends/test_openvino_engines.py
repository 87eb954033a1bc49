"""Engines of OpenVINO: what the CPU computes in is reported, and nothing it lacks is claimed."""

import sys

import numpy as np
import pytest
from engine_graphs import CLASSES, HEIGHT, WIDTH

from qanet.errors import QanetError
from qanet.export.backends import openvino
from qanet.export.backends.census import check_delivered
from qanet.runtime.backends.openvino import openvino_core


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_openvino_reports_what_the_cpu_computes_in(graphs, precision):

    engine = openvino.build(graphs[precision], precision=precision)
    delivered = openvino.deliverable(precision, None)
    check_delivered(engine.census, delivered)
    if delivered != precision:
        assert any(f"{precision} was asked for" in message for message in engine.messages)
        with pytest.raises(QanetError, match=f"{precision} was asked for.*stem .{delivered}."):
            check_delivered(engine.census, precision)
    loaded = openvino_core().import_model(engine.data, "CPU", {})
    crops = np.random.default_rng(0).integers(0, 256, (2, HEIGHT, WIDTH, 3), np.uint8)
    results = loaded({"crops": crops, "box_scores": np.ones(2, np.float32)})
    assert results["logits"].shape == (2, CLASSES, HEIGHT // 2, WIDTH // 2)


def test_openvino_keeps_the_outputs_of_a_kernel_tail(graphs):
    engine = openvino.build(graphs["int8"], precision="int8", outputs=("logits", "iou_scores"))
    assert (engine.inputs, engine.outputs) == (("crops",), ("logits", "iou_scores"))
    check_delivered(engine.census, "int8")
    assert engine.options["INFERENCE_PRECISION_HINT"] in ("f32", "bf16", "f16")
    assert engine.targets[0].startswith("cpu-") and engine.version in (engine.requires or engine.version)


def test_openvino_missing_says_how_to_install_it(graphs, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(QanetError, match="OpenVINO is not installed.*pip install openvino"):
        openvino.build(graphs["fp32"], precision="fp32")


@pytest.mark.parametrize(
    ("default", "capabilities", "asked", "given"),
    [
        ("bf16", ["FP32", "BF16", "INT8"], "fp16", "bf16"),
        ("bf16", ["FP32", "BF16", "INT8"], "bf16", "bf16"),
        ("f16", ["FP32", "FP16"], "bf16", "fp16"),
        ("bf16", ["FP32", "BF16", "FP16"], "fp16", "fp16"),
        ("f32", ["FP32", "BF16"], "fp16", "fp32"),  # BF16 listed and only emulated
        ("bf16", ["FP32", "BF16"], "fp32", "fp32"),
        ("f32", ["FP32"], "int8", "int8"),
    ],
)
def test_a_16_bit_type_the_cpu_lacks_is_not_claimed(monkeypatch, default, capabilities, asked, given):
    from openvino import Type

    class Core:
        def get_property(self, device, name):
            return capabilities if name == "OPTIMIZATION_CAPABILITIES" else getattr(Type, default)

    monkeypatch.setattr(openvino, "openvino_core", Core)
    assert openvino.deliverable(asked) == given


@pytest.mark.parametrize(
    ("capabilities", "outputs", "given"),
    [
        (["FP32", "BF16", "FP16"], ("logits", "iou_scores"), "fp16"),
        (["FP32", "BF16", "FP16"], ("iou_scores",), "fp16"),
        (["FP32", "BF16", "FP16"], None, "bf16"),
        (["FP32", "BF16", "FP16"], ("logits", "part_scores"), "bf16"),
        (["FP32", "FP16"], None, "fp32"),
    ],
)
def test_the_tail_of_a_graph_is_never_computed_in_fp16(monkeypatch, capabilities, outputs, given):
    from openvino import Type

    class Core:
        def get_property(self, device, name):
            return capabilities if name == "OPTIMIZATION_CAPABILITIES" else Type.bf16

    monkeypatch.setattr(openvino, "openvino_core", Core)
    assert openvino.deliverable("fp16", outputs) == given


def test_openvino_refuses_an_unknown_precision(graphs):
    with pytest.raises(QanetError, match="no precision 'fp8'; choose from fp32, fp16, bf16, int8"):
        openvino.build(graphs["fp32"], precision="fp8")
