"""The bundled parsing network for machines that are not here: logits alone, of small crops, in three precisions."""

import numpy as np
import onnx
import onnx.parser
from onnx import numpy_helper

from qanet.bundle import open_bundle
from qanet.calib.quantize import insert_qdq
from qanet.calib.scales import load_scales

HEIGHT, WIDTH = 128, 96  # a ninth of the pixels that the network was trained with: an emulated machine has 1 s for them


def foreign_graphs() -> dict[str, onnx.ModelProto]:
    """fp32, int8 (127 levels a side) and int8_seven (64 levels, but 127 where a convolution is depthwise)."""
    bundle = open_bundle("ccp13-lite0")
    path = bundle.path / bundle.manifest["graphs"]["fp32"]
    scales = load_scales(bundle.path / "scales.json", path)
    quantised = insert_qdq(scales.check(path), scales)
    seven = onnx.ModelProto.FromString(quantised.SerializeToString())
    halve_weights(seven)
    graphs = {"fp32": onnx.load(path), "int8": quantised, "int8_seven": seven}
    for model in graphs.values():
        _cut(model)
    return graphs


def halve_weights(model: onnx.ModelProto) -> None:
    """Round the INT8 weights of a Q/DQ graph to half as many levels.

    Products of 64 levels added in pairs fit 16 bits: 2 x 255 x 64 = 32640. The weights of a depthwise convolution stay
    as they are, since its kernels add no pairs: they go through one channel at a time.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    made = {node.output[0]: node for node in model.graph.node if node.op_type == "DequantizeLinear"}
    for node in model.graph.node:
        if node.op_type != "Conv" or node.input[1] not in made:
            continue
        weight, scale = made[node.input[1]].input[:2]
        steps = numpy_helper.to_array(constants[weight]).astype(np.float32)
        if steps.shape[1] == 1:  # depthwise
            continue
        widths = numpy_helper.to_array(constants[scale])
        constants[weight].CopyFrom(numpy_helper.from_array(np.rint(steps / 2).astype(np.int8), weight))
        constants[scale].CopyFrom(numpy_helper.from_array(widths * np.float32(2), scale))


def worst_case(levels: int) -> onnx.ModelProto:
    """Convolutions whose products are as large as they can be: activations and weights at the ends of their ranges.

    The steps are powers of two, so that what does not overflow is exact in float32 as well.

    Args:
        levels: the size of the weights, in steps; of the depthwise ones it is 127.
    """
    channels, rng = 32, np.random.default_rng(0)
    signs: np.ndarray = rng.choice(np.array([-1, 1], np.int8), (channels, channels, 3, 3))
    signs[0::3], signs[1::3] = 1, -1  # a third all positive, a third all negative, a third mixed
    constants: dict[str, np.ndarray | np.generic] = {
        "full.steps": signs * np.int8(levels), "deep.steps": signs[:, :1] * np.int8(127),
        "last.steps": signs[:13, :, :1, :1] * np.int8(levels), "weight.step": np.float32(2**-10),
        "grey": np.float32(127.5), "spread": np.ones((channels, 3, 1, 1), np.float32) / np.float32(3),
        "zero": np.int8(0), "a.step": np.float32(2**-7),
        **{f"{name}.step": np.float32(0.25) for name in "bcd"},
    }  # fmt: skip
    text = f"""
        <ir_version: 9, opset_import: ["": 18]>
        worst (uint8[N,{HEIGHT},{WIDTH},3] crops) => (float[N,13,{HEIGHT},{WIDTH}] logits) {{
          floats = Cast<to = 1>(crops)
          planar = Transpose<perm = [0, 3, 1, 2]>(floats)
          centred = Sub(planar, grey)
          a = Conv(centred, spread)
          {_quantised("a")}
          {_weight("full")}
          b = Conv<pads = [1, 1, 1, 1]>(a.dq, full.weight)
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


def exact_logits(model: onnx.ModelProto, crops: np.ndarray) -> np.ndarray:
    """What a graph means, on any machine: each Q and DQ by itself, and the products between them in float32."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed = {"crops": crops, "box_scores": np.ones(len(crops), np.float32)}
    return session.run(["logits"], {value.name: feed[value.name] for value in session.get_inputs()})[0]


def relative_error(got: np.ndarray, exact: np.ndarray) -> float:
    """RMS of the error over the RMS of the value."""
    return float(np.sqrt(np.square(got.astype(np.float64) - exact).mean() / np.square(exact.astype(np.float64)).mean()))


def _cut(model: onnx.ModelProto) -> None:
    """Logits alone, of crops of HEIGHT x WIDTH: the network has no layer that knows the size."""
    graph = model.graph
    del graph.value_info[:]
    logits = next(value for value in graph.output if value.name == "logits")
    for value, height, width, first in ((graph.input[0], HEIGHT, WIDTH, 1), (logits, HEIGHT // 4, WIDTH // 4, 2)):
        dimensions = value.type.tensor_type.shape.dim
        dimensions[first].dim_value, dimensions[first + 1].dim_value = height, width
    kept = onnx.ValueInfoProto.FromString(logits.SerializeToString())
    del graph.output[:]
    graph.output.append(kept)
