"""Layers as TensorRT's builder prints them and as its inspector tells them."""

import json
import os
import signal
from types import SimpleNamespace

import pytest

from qanet.export.backends.builder_log import layers_from_inspector, layers_from_log, precision_of, watched

TENSOR = "{{ Name: t, Dimensions: [{}], Strides: [1], StrideOrder: [0], Datatype: {}, Format: (NHWC) Channel major }}"


def line(name, kind, inputs, constants, outputs, nodes):
    sides = [", ".join(TENSOR.format(*tensor) for tensor in side) for side in (inputs, constants, outputs)]
    return (
        "Name: {}, LayerType: {}, Inputs: [ {}], Constants: [ {}], Outputs: [ {}], TacticName: t, StreamId: 0, "
        "Metadata: {}"
    ).format(name, kind, *sides, "\x1f".join(f"[ONNX Layer: {node}]" for node in nodes))


def test_layers_are_read_from_the_builder_log():
    data = ("-1,8,4,4", "Int8")
    weights, scales = ("8,8,3,3", "Int8"), ("1,8,1,1", "Float")
    convolution = line("conv_myl0_1", "correlation", [data], [weights, scales], [("-1,8,4,4", "Float")], ["conv", "r"])
    quantise = line("__myl_MulRounCast_myl0_2", "kgen", [("-1,8,4,4", "Float")], [scales], [data], ["q"])
    move = line("__myl_TranConc_myl0_3", "kgen", [("-1,8", "Half")], [], [("-1,8", "Half")], [])
    mixed = line("gemm_myl0_4", "gemm", [("-1,8", "Float")], [("8,8", "Half")], [("-1,8", "Float")], ["gemm"])
    wait = line("w", "wait", [], [], [], [])
    layers = layers_from_log(["Layers:\n" + "\n".join((convolution, quantise, move, mixed, wait))])
    assert [(x.nodes, x.precision, x.computes, x.moves, x.quantizes) for x in layers] == [
        (("conv", "r"), "int8", True, False, False),
        (("q",), "fp32", False, False, True),
        ((), "fp16", False, True, False),
        (("gemm",), "fp32", True, False, False),
    ]


def test_layers_are_read_from_the_engine_inspector():
    def layer(name, kind, inputs, outputs, **more):
        sides = ([{"Name": "t", "Dimensions": [1], "Format/Datatype": text} for text in s] for s in (inputs, outputs))
        return {"Name": name, "LayerType": kind, **dict(zip(("Inputs", "Outputs"), sides)), **more}

    vectors = "Thirty-two wide channel vectorized row major Int8 format"
    weights = {"Type": "Int8", "Count": 64}
    document = {
        "Layers": [
            layer("Reformatting CopyNode", "Reformat", ["Row major linear FP32"], [vectors]),
            layer("a + relu", "CaskConvolution", [vectors, vectors], [vectors], Weights=weights, Metadata=""),
            layer("m", "CaskGemmMatrixMultiply", ["Half"], ["Half"], Metadata="[ONNX Layer: x]\x1e[ONNX Layer: y]"),
            layer("n", "NoOp", ["Half"], ["Half"]),
        ]
    }
    text = json.dumps(document).replace("\\u001e", "\x1e")  # the inspector leaves its separators unescaped
    layers = layers_from_inspector(text)
    assert [(x.nodes, x.precision, x.computes, x.moves) for x in layers] == [
        (("Reformatting CopyNode",), "fp32", False, True),
        (("a", "relu"), "int8", True, False),
        (("x", "y"), "fp16", True, False),
    ]
    assert layers_from_inspector('{"Layers": ["names", "only"]}') == []


@pytest.mark.parametrize(
    ("text", "precision"),
    [
        ("Half", "fp16"),
        ("BFloat16", "bf16"),
        ("UInt8", "other"),
        ("Int8", "int8"),
        ("FP8", "fp8"),
        ("E4M3", "fp8"),
        ("Channel major FP16 format where channel % 8 == 0", "fp16"),
        ("Row major linear FP32", "fp32"),
        ("Int64", "other"),
    ],
)
def test_words_for_types(text, precision):
    assert precision_of(text) == precision


class Monitor:
    """What TensorRT's own class of that name is to a subclass."""


def build(config, steps):
    """A builder of one phase: the steps it came to before its monitor asked it to stop."""
    config.progress_monitor.phase_start("Building", None, steps)
    for step in range(steps):
        if step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        if not config.progress_monitor.step_complete("Building", step):
            return step + 1
    config.progress_monitor.phase_finish("Building")
    return steps


def test_ctrl_c_ends_the_build_at_the_next_step():
    trt, config = SimpleNamespace(IProgressMonitor=Monitor), SimpleNamespace(progress_monitor=None)
    shown = SimpleNamespace(total=0, done=0, set_description=lambda phase: None)
    shown.update = lambda steps: setattr(shown, "done", shown.done + steps)
    before, came_to = signal.getsignal(signal.SIGINT), []
    with pytest.raises(KeyboardInterrupt), watched(trt, config, shown):
        came_to.append(build(config, 10))
    assert came_to == [3] and (shown.done, shown.total) == (3, 10)
    assert signal.getsignal(signal.SIGINT) is before and config.progress_monitor is None
