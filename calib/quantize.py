"""Writes INT8 into the FP32 graph: QuantizeLinear/DequantizeLinear pairs with the ranges of a calibration.

Activations get a Q and a DQ, one pair a tensor, shared by its readers. Weights are stored as int8 initialisers with
a DQ alone, which TensorRT, TensorRT-RTX, OpenVINO and ONNX Runtime all take, so the file is about a quarter of the
FP32 one. All is symmetric with zero point 0: scale = amax / 127, and -128 is not used by weights.
"""

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.calib.placement import Placement, place
from qanet.calib.ranges import INT8_LEVELS
from qanet.calib.scales import Scales
from qanet.errors import QanetError

# A runtime may turn a float bias into int32 steps of activation scale x weight scale (ONNX Runtime does, on its own),
# and with a tiny weight scale those overflow. A channel whose largest weight is under 0.0078 keeps this step: 230 of
# the CCP network's 21,021 channels, 81 of which are zero.
SMALLEST_SCALE = 2.0**-14
_ZERO_POINT = "int8.zero_point"


def write_int8(model_path: str | Path, scales: Scales, output: str | Path) -> None:
    """FP32 ONNX file -> INT8 Q/DQ ONNX file with the same inputs and outputs; the same input gives the same bytes.

    Raises:
        QanetError: scales of another model or not complete (see `Scales.check`), broken ONNX, a scale too small.
    """
    model = insert_qdq(scales.check(model_path), scales)
    Path(output).write_bytes(model.SerializeToString(deterministic=True))


def insert_qdq(model: Any, scales: Scales) -> Any:
    """Q/DQ into an onnx.ModelProto as `load_model` returns it; the model given is left as it is.

    Raises:
        QanetError: a range is missing, or too small for a scale.
    """
    import onnx

    scales.check_complete(model)
    placement = place(model, scales.keep)
    quantised = deepcopy(model)
    graph = quantised.graph
    pairs = {name: _pair(name, scales.ranges[placement.range_of[name]].amax) for name in placement.readers}
    weights = _weights(graph, placement)
    for name, readers in placement.readers.items():
        for index, position in readers:
            graph.node[index].input[position] = f"{name}.dq"
    _reassemble(graph, pairs, weights)
    del graph.value_info[:]
    quantised = onnx.shape_inference.infer_shapes(quantised, strict_mode=True)
    onnx.checker.check_model(quantised, full_check=True)
    return quantised


def quantise_weight(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Per output channel (axis 0): float32 (M, ...) -> int8 of the same shape and scales (M,) float32."""
    amax = np.abs(weight).reshape(len(weight), -1).max(1)
    scale = np.maximum(amax / INT8_LEVELS, SMALLEST_SCALE).astype(np.float32)
    steps = weight / scale.reshape(-1, *[1] * (weight.ndim - 1))
    return np.clip(np.rint(steps), -INT8_LEVELS, INT8_LEVELS).astype(np.int8), scale


def _pair(name: str, amax: float) -> tuple[list[Any], list[Any]]:
    """Nodes and initialisers of one activation's Q and DQ."""
    import onnx

    scale = amax / INT8_LEVELS
    if scale < SMALLEST_SCALE:
        raise QanetError(
            f"the range of tensor {name!r} is too small for INT8", got=amax,
            expected=f"amax >= {SMALLEST_SCALE * INT8_LEVELS:.4f}",
            next_command="keep the layers that read it in float",
        )  # fmt: skip
    quantise = onnx.helper.make_node(
        "QuantizeLinear", [name, f"{name}.scale", _ZERO_POINT], [f"{name}.q"], name=f"{name}.q"
    )  # fmt: skip
    dequantise = onnx.helper.make_node(
        "DequantizeLinear", [f"{name}.q", f"{name}.scale", _ZERO_POINT], [f"{name}.dq"], name=f"{name}.dq"
    )  # fmt: skip
    return [quantise, dequantise], [onnx.numpy_helper.from_array(np.array(scale, np.float32), f"{name}.scale")]


def _weights(graph: Any, placement: Placement) -> dict[str, tuple[list[Any], list[Any]]]:
    """Weight name -> its DQ node and int8 initialisers; rewires the convolutions to read the DQ."""
    import onnx

    initialisers = {tensor.name: tensor for tensor in graph.initializer}
    made: dict[str, tuple[list[Any], list[Any]]] = {}
    for index in placement.convolutions:
        name = graph.node[index].input[1]
        graph.node[index].input[1] = f"{name}.dq"
        if name in made:
            continue
        values, scale = quantise_weight(onnx.numpy_helper.to_array(initialisers[name]))
        tensors: dict[str, NDArray[Any]] = {"int8": values, "scale": scale, "zero_point": np.zeros(len(scale), np.int8)}
        node = onnx.helper.make_node(
            "DequantizeLinear", [f"{name}.{part}" for part in tensors], [f"{name}.dq"], name=f"{name}.dq", axis=0
        )  # fmt: skip
        made[name] = [node], [onnx.numpy_helper.from_array(array, f"{name}.{part}") for part, array in tensors.items()]
    return made


def _reassemble(graph: Any, pairs: dict[str, Any], weights: dict[str, Any]) -> None:
    """Put every new node right before its first reader, and drop the float weights that nothing reads any more."""
    import onnx

    pending = {nodes[-1].output[0]: (nodes, tensors) for nodes, tensors in (*pairs.values(), *weights.values())}
    zero = onnx.numpy_helper.from_array(np.zeros((), np.int8), _ZERO_POINT)
    nodes, initialisers = [], [zero]
    for node in graph.node:
        for name in node.input:
            new_nodes, new_tensors = pending.pop(name, ([], []))
            nodes += new_nodes
            initialisers += new_tensors
        nodes.append(node)
    read = {name for node in nodes for name in node.input} | {value.name for value in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    # Slices of a repeated protobuf field are references: the lists must be copied before the fields are cleared.
    nodes, initialisers = [deepcopy(n) for n in nodes], [deepcopy(t) for t in (*kept, *initialisers)]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(initialisers)
