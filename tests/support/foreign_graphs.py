"""The bundled parsing network for machines that are not here: without its tail and on small crops; and a worst case."""

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
from qanet.runtime.backends.base import KERNEL_TAIL_OUTPUTS
from qanet.runtime.backends.onnxruntime import exact_outputs

HEIGHT, WIDTH = 64, 32  # of 384x288, on which the network was trained: an emulated machine is slow


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
    """Logits and IoU scores alone, of crops of HEIGHT x WIDTH: the network has no layer that knows the size."""
    graph = model.graph
    del graph.value_info[:]
    kept = [
        onnx.ValueInfoProto.FromString(v.SerializeToString()) for v in graph.output if v.name in KERNEL_TAIL_OUTPUTS
    ]
    del graph.output[:]
    graph.output.extend(kept)
    logits = next(value for value in graph.output if value.name == "logits")
    for value, height, width, first in ((graph.input[0], HEIGHT, WIDTH, 1), (logits, HEIGHT // 4, WIDTH // 4, 2)):
        dimensions = value.type.tensor_type.shape.dim
        dimensions[first].dim_value, dimensions[first + 1].dim_value = height, width
