"""The first blocks of the bundled network, on small crops, for machines that are not here; and a worst case."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
from onnx import numpy_helper

from qanet.bundle import NO_VNNI, create, open_bundle
from qanet.calib.quantize import insert_qdq
from qanet.calib.scales import parse_scales
from qanet.runtime.answers.known import renew_answers
from qanet.runtime.answers.verdicts import TOLERANCES
from qanet.runtime.backends.onnxruntime import exact_outputs

HEIGHT, WIDTH = 128, 96  # a ninth of the pixels that the network was trained with
_LAST = "backbone.blocks.1.project.sum"  # 24 channels at a quarter of the resolution


def foreign_graphs() -> dict[str, onnx.ModelProto]:
    """Key of a bundle's graphs -> model: fp32, int8 and int8-no-vnni."""
    bundle = open_bundle("ccp13-lite0")
    graph = bundle.graph("fp32")
    scales = parse_scales(bundle.read("scales.json"))
    graphs = {"fp32": onnx.load_model_from_string(graph)}
    for name in ("int8", NO_VNNI):
        graphs[name] = insert_qdq(scales.check(graph), scales, name)
    for model in graphs.values():
        _cut(model)
    return graphs


def foreign_bundle(path: Path, graphs: Mapping[str, onnx.ModelProto]) -> Path:
    """A bundle of some of `foreign_graphs` with the known answers of each; its folder."""
    bundle = create(path, labels="ccp13", input_hw=[HEIGHT, WIDTH], graphs={})
    files = {name: model.SerializeToString(deterministic=True) for name, model in graphs.items()}
    for name, data in files.items():
        bundle.add_file(f"model.{name}.onnx", data)
        bundle.manifest["graphs"][name] = f"model.{name}.onnx"
    renew_answers(bundle, files, exact_outputs, TOLERANCES)
    bundle.save()
    return bundle.path


def worst_case(first: int, second: int) -> onnx.ModelProto:
    """Convolutions whose products are as large as they can be: activations and weights at the ends of their ranges.

    The steps are powers of two, so that what does not overflow is exact in float32 as well.

    Args:
        first, second: the size of the weights of even and of odd input channels, in steps; of the depthwise
            convolution's it is 127.
    """
    channels, rng = 32, np.random.default_rng(0)
    signs: np.ndarray = rng.choice(np.array([-1, 1], np.int8), (channels, channels, 3, 3))
    signs[0::3], signs[1::3] = 1, -1  # a third all positive, a third all negative, a third mixed
    sizes = np.array([first, second] * (channels // 2), np.int8)[:, None, None]
    constants: dict[str, np.ndarray | np.generic] = {
        "full.steps": signs * sizes,
        "deep.steps": signs[:, :1] * np.int8(127),
        "last.steps": signs[:13, :, :1, :1] * sizes,
        "weight.step": np.float32(2**-10),
        "grey": np.float32(127.5),
        "spread": np.ones((channels, 3, 1, 1), np.float32) / np.float32(3),
        "zero": np.int8(0),
        "a.step": np.float32(2**-7),
        **{f"{name}.step": np.float32(0.25) for name in "bcd"},
    }
    text = f"""
        <ir_version: 9, opset_import: ["": 18]>
        worst (uint8[N,{HEIGHT},{WIDTH},3] crops) => (float[N,13,{HEIGHT // 4},{WIDTH // 4}] logits) {{
          floats = Cast<to = 1>(crops)
          planar = Transpose<perm = [0, 3, 1, 2]>(floats)
          centred = Sub(planar, grey)
          a = Conv(centred, spread)
          {_quantised("a")}
          {_weight("full")}
          b = Conv<pads = [1, 1, 1, 1], strides = [4, 4]>(a.dq, full.weight)
          {_quantised("b")}
          {_weight("deep")}
          c = Conv<pads = [1, 1, 1, 1], group = {channels}>(b.dq, deep.weight)
          {_quantised("c")}
          {_weight("last")}
          d = Conv(c.dq, last.weight)
          {_quantised("d", "logits")}
        }}
    """
    model = onnx.parser.parse_model(text.replace(".", "_"))
    named = ((name.replace(".", "_"), np.asarray(value)) for name, value in constants.items())
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in named)
    onnx.checker.check_model(model, full_check=True)
    return model


def _quantised(name: str, output: str = "") -> str:
    steps = f"{name}.q = QuantizeLinear({name}, {name}.step, zero)"
    return f"{steps}\n{output or name + '.dq'} = DequantizeLinear({name}.q, {name}.step, zero)"


def _weight(name: str) -> str:
    return f"{name}.weight = DequantizeLinear({name}.steps, weight.step, zero)"


def _cut(model: onnx.ModelProto) -> None:
    """Keep the first blocks, for crops of HEIGHT x WIDTH: 13 of their channels are logits, their mean the IoU scores.

    Eight convolutions saturate as all 56 do, and an emulated machine compiles them in a seventh of the time.
    """
    graph = model.graph
    bounds = {"first": [0], "end": [13], "axis": [1], "axes": [1, 2, 3]}
    graph.initializer.extend(numpy_helper.from_array(np.array(value), f"cut.{name}") for name, value in bounds.items())
    shapes = {value.name: value.SerializeToString() for value in graph.output}
    del graph.value_info[:], graph.output[:]
    wanted, kept = {_LAST}, []
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            kept.append(onnx.NodeProto.FromString(node.SerializeToString()))
    del graph.node[:]
    graph.node.extend(reversed(kept))
    graph.node.append(onnx.helper.make_node("Slice", [_LAST, "cut.first", "cut.end", "cut.axis"], ["logits"]))
    graph.node.append(onnx.helper.make_node("ReduceMean", ["logits", "cut.axes"], ["iou_scores"], keepdims=0))
    weights = [t for t in graph.initializer if t.name in wanted or t.name.startswith("cut.")]
    weights = [onnx.TensorProto.FromString(t.SerializeToString()) for t in weights]
    del graph.initializer[:]
    graph.initializer.extend(weights)
    graph.output.extend(onnx.ValueInfoProto.FromString(shapes[n]) for n in ("logits", "iou_scores"))
    for value, height, width, first in (
        (graph.input[0], HEIGHT, WIDTH, 1),
        (graph.output[0], HEIGHT // 4, WIDTH // 4, 2),
    ):
        dimensions = value.type.tensor_type.shape.dim
        dimensions[first].dim_value, dimensions[first + 1].dim_value = height, width
    onnx.checker.check_model(model, full_check=True)
