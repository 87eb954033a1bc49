"""Graphs to build engines of: three convolutions and a Gemm, in the precision that is written into them."""

import importlib.util

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="graphs are made with onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

needs_rtx = pytest.mark.skipif(
    not importlib.util.find_spec("tensorrt_rtx"), reason="tensorrt_rtx is not installed: pip install 'qanet-edge[rtx]'"
)
HEIGHT, WIDTH, CLASSES, CHANNELS = 32, 24, 5, 16
CONVOLUTIONS = ("stem", "body", "classify")


def finish(nodes: list, weights: dict) -> onnx.ModelProto:
    """A checked model with the contract's inputs and three of its outputs."""
    inputs = [
        helper.make_tensor_value_info("crops", TensorProto.UINT8, ["N", HEIGHT, WIDTH, 3]),
        helper.make_tensor_value_info("box_scores", TensorProto.FLOAT, ["N"]),
    ]
    shapes = {"logits": ["N", CLASSES, HEIGHT // 2, WIDTH // 2], "iou_scores": ["N"], "quality": ["N"]}
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    tensors = [numpy_helper.from_array(values, name) for name, values in weights.items()]
    graph = helper.make_graph(nodes, "parsing", inputs, outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return model


def make_graph(precision: str = "fp32", *, first: str = "Cast") -> onnx.ModelProto:
    """crops -> conv, relu, conv, add, conv -> logits; their mean -> Gemm -> iou_scores; box_scores x iou -> quality."""
    kind = np.float16 if precision == "fp16" else np.float32
    rng = np.random.default_rng(0)
    nodes, weights = [], {}

    def convolve(name: str, data: str, channels: int, filters: int, out: str, size: int = 3, stride: int = 1) -> None:
        values = rng.normal(0, 0.1, (filters, channels, size, size)).astype(kind)
        weights[f"{name}.bias"] = np.zeros(filters, kind)
        inputs = [data, f"{name}.weight", f"{name}.bias"]
        if precision == "int8":
            scale = np.abs(values).max((1, 2, 3)) / 127
            weights[f"{name}.weight"] = np.rint(values / scale[:, None, None, None]).astype(np.int8)
            weights[f"{name}.scale"] = scale.astype(kind)
            weights[f"{name}.zeros"] = np.zeros(filters, np.int8)
            weights["activation.scale"], weights["activation.zero"] = np.array(0.02, kind), np.array(0, np.int8)
            activation, per_channel = (["activation.scale", "activation.zero"], [f"{name}.scale", f"{name}.zeros"])
            nodes.extend(
                (
                    helper.make_node("QuantizeLinear", [data, *activation], [f"{name}.q"], f"{name}.quantize"),
                    helper.make_node(
                        "DequantizeLinear", [f"{name}.q", *activation], [f"{name}.dq"], f"{name}.dequantize"
                    ),
                    helper.make_node(
                        "DequantizeLinear", [f"{name}.weight", *per_channel], [f"{name}.w"], f"{name}.weights", axis=0
                    ),
                )
            )
            inputs = [f"{name}.dq", f"{name}.w", f"{name}.bias"]
        else:
            weights[f"{name}.weight"] = values
        pads = [size // 2] * 4
        nodes.append(
            helper.make_node("Conv", inputs, [out], name, kernel_shape=[size] * 2, pads=pads, strides=[stride] * 2)
        )

    to = TensorProto.FLOAT16 if precision == "fp16" else TensorProto.FLOAT
    chain = (("Cast", {"to": to}), ("Transpose", {"perm": [0, 3, 1, 2]}))
    data = "crops"
    for operator, attributes in chain if first == "Cast" else chain[::-1]:
        nodes.append(helper.make_node(operator, [data], [f"{data}.{operator}"], operator.lower(), **attributes))
        data = f"{data}.{operator}"
    convolve("stem", data, 3, CHANNELS, "a", stride=2)
    nodes.append(helper.make_node("Relu", ["a"], ["b"], "relu"))
    convolve("body", "b", CHANNELS, CHANNELS, "c", stride=1)
    nodes.append(helper.make_node("Add", ["b", "c"], ["d"], "sum"))
    convolve("classify", "d", CHANNELS, CLASSES, "e", size=1)
    weights |= {"gemm.weight": np.ones((CHANNELS, 1), kind), "axes": np.array([2, 3]), "row": np.array([-1])}
    nodes += [
        helper.make_node("Cast", ["e"], ["logits"], "widen", to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["d", "axes"], ["f"], "mean", keepdims=0),
        helper.make_node("Gemm", ["f", "gemm.weight"], ["g"], "iou"),
        helper.make_node("Cast", ["g"], ["h"], "widen_iou", to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["h", "row"], ["iou_scores"], "flat"),
        helper.make_node("Mul", ["iou_scores", "box_scores"], ["quality"], "fuse"),
    ]
    return finish(nodes, weights)
