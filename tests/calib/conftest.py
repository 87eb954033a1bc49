"""A small graph with everything the real one has: stem, depthwise, residual, resize, two heads, FP32 tail."""

from typing import Any

import numpy as np
import pytest


def _small_graph(height: int, width: int, seed: int = 0) -> Any:
    """crops uint8 (N, H, W, 3), box_scores (N,) -> logits (N, 4, H/2, W/2), labels int64, pixel_scores, quality."""
    from onnx import TensorProto as T
    from onnx import helper, numpy_helper

    random = np.random.default_rng(seed)
    nodes, constants = [], []

    def constant(name: str, value: Any) -> str:
        constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def conv(name: str, source: str, shape: tuple[int, ...], bias: bool = True, **attributes: Any) -> str:
        fan_in = np.prod(shape[1:])
        inputs = [source, constant(f"{name}.weight", random.normal(0, fan_in**-0.5, shape).astype(np.float32))]
        if bias:
            inputs.append(constant(f"{name}.bias", random.normal(0, 0.1, shape[0]).astype(np.float32)))
        pad = shape[-1] // 2
        return node("Conv", inputs, name, pads=[pad] * 4, kernel_shape=list(shape[2:]), **attributes)

    x = node("Cast", ["crops"], "float", to=T.FLOAT)
    x = node("Transpose", [x], "planar", perm=[0, 3, 1, 2])
    x = node("Sub", [x, constant("mean", np.float32(127))], "centred")
    x = node("Mul", [x, constant("inverse_std", np.float32(1 / 128))], "normalised")
    six = [constant("zero", np.float32(0)), constant("six", np.float32(6))]
    stem = node("Clip", [conv("stem", x, (8, 3, 3, 3), strides=[2, 2]), *six], "stem.relu6")
    deep = node("Clip", [conv("deep", stem, (8, 1, 3, 3), group=8), *six], "deep.relu6")
    project = conv("project", deep, (8, 8, 1, 1))
    total = node("Add", [stem, project], "project.sum")
    down = node("Relu", [conv("down", total, (8, 8, 3, 3), bias=False, strides=[2, 2])], "down.relu")
    scales = constant("up.scales", np.array([1, 1, 2, 2], np.float32))
    up = node("Resize", [down, "", scales], "down.up", mode="linear", coordinate_transformation_mode="half_pixel")
    feature = node("Relu", [conv("mix", up, (8, 8, 3, 3))], "mix.relu")
    conv("logits", feature, (4, 8, 1, 1))
    softmax = node("Softmax", ["logits"], "softmax", axis=1)
    node("ArgMax", [softmax], "labels", axis=1, keepdims=0)
    sure = node("ReduceMax", [softmax, constant("channel", np.array([1]))], "sure", keepdims=0)
    node("ReduceMean", [sure, constant("map", np.array([1, 2]))], "pixel_scores", keepdims=0)
    pooled = node("ReduceMean", [feature, constant("pixels", np.array([2, 3]))], "pooled", keepdims=1)
    hidden = node("Relu", [conv("iou.fc", pooled, (8, 8, 1, 1))], "iou.fc.relu")
    flat = node("Flatten", [hidden], "flat")
    weight = constant("iou.weight", random.normal(0, 0.3, (8, 1)).astype(np.float32))
    iou = node("Gemm", [flat, weight, constant("iou.bias", np.array([0.5], np.float32))], "iou")
    iou = node("Squeeze", [iou, "channel"], "iou.scalar")
    node("Mul", [iou, "box_scores"], "quality")
    shapes = {
        "logits": (T.FLOAT, ["N", 4, height // 2, width // 2]),
        "labels": (T.INT64, ["N", height // 2, width // 2]),
        "pixel_scores": (T.FLOAT, ["N"]),
        "quality": (T.FLOAT, ["N"]),
    }
    inputs = [
        helper.make_tensor_value_info("crops", T.UINT8, ["N", height, width, 3]),
        helper.make_tensor_value_info("box_scores", T.FLOAT, ["N"]),
    ]
    outputs = [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in shapes.items()]
    graph = helper.make_graph(nodes, "small", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.fixture(scope="session")
def small_graph():
    """The builder: (height, width, seed) -> onnx.ModelProto."""
    pytest.importorskip("onnx")
    return _small_graph


@pytest.fixture(scope="session")
def small_model(small_graph):
    """The small graph for crops of 16x12, as an ONNX file's contents."""
    return small_graph(16, 12).SerializeToString(deterministic=True)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache of calibrations; its folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "qanet" / "calibration"


@pytest.fixture
def crops():
    """Twelve crops of smooth random colours, uint8 (12, 16, 12, 3)."""
    random = np.random.default_rng(1)
    coarse = random.integers(0, 256, (12, 4, 3, 3))
    noise = random.integers(-20, 20, (12, 16, 12, 3))
    return np.clip(coarse.repeat(4, 1).repeat(4, 2) + noise, 0, 255).astype(np.uint8)
