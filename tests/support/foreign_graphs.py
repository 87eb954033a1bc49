"""The bundled parsing network for machines that are not here: logits alone, of small crops, in three precisions."""

import numpy as np
import onnx
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


def halve_weights(model: onnx.ModelProto) -> int:
    """Round the INT8 weights of a Q/DQ graph to half as many levels; how many of its convolutions have such weights.

    Products of 64 levels added in pairs fit 16 bits: 2 x 255 x 64 = 32640. The weights of a depthwise convolution stay
    as they are, since its kernels add no pairs: they go through one channel at a time.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    made = {node.output[0]: node for node in model.graph.node if node.op_type == "DequantizeLinear"}
    halved = 0
    for node in model.graph.node:
        groups = next((a.i for a in node.attribute if a.name == "group"), 1)
        if node.op_type != "Conv" or node.input[1] not in made or groups > 1:
            continue
        weight, scale = made[node.input[1]].input[:2]
        steps = numpy_helper.to_array(constants[weight]).astype(np.float32)
        widths = numpy_helper.to_array(constants[scale])
        constants[weight].CopyFrom(numpy_helper.from_array(np.rint(steps / 2).astype(np.int8), weight))
        constants[scale].CopyFrom(numpy_helper.from_array(widths * np.float32(2), scale))
        halved += 1
    return halved


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
