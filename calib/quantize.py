"""Writes INT8 or FP8 into the FP32 graph: QuantizeLinear/DequantizeLinear pairs with the ranges of a calibration.

Activations get a Q and a DQ, one pair per tensor, shared by its readers. Weights are stored as constants of the narrow
type with a DQ alone, which TensorRT, TensorRT-RTX, OpenVINO and ONNX Runtime all take, so the file is about a quarter
of the FP32 one. Everything is symmetric with zero point 0: scale = amax / 127, and weights do not use -128. For CPUs
without VNNI two neighbouring weights share their range, so that the sum of their products fits 16 bits. FP8 is E4M3,
scale = amax / 448, for GPUs from sm_89 on; its Q/DQ came with opset 19.
"""

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.bundle import NO_VNNI
from qanet.calib.placement import Placement, place
from qanet.calib.ranges import INT8_LEVELS
from qanet.calib.scales import Scales
from qanet.cpu import sums_saturate
from qanet.errors import QanetError

# A runtime may turn a float bias into int32 steps of activation scale x weight scale (ONNX Runtime does, on its own),
# and with a tiny weight scale those overflow. A channel whose largest weight is under 0.0078 keeps this step: 230 of
# the CCP network's 21,021 channels, 81 of which are zero.
SMALLEST_SCALE = 2.0**-14


@dataclass(frozen=True)
class NarrowType:
    """A type to quantise to.

    Attributes:
        name: of the type.
        top: the value that amax maps to.
        opset: the first whose Q/DQ knows the type.
        pair_top: largest sum of the magnitudes of two neighbouring weights; None for no limit.
    """

    name: str
    top: float
    opset: int
    pair_top: float | None = None

    @property
    def dtype(self) -> np.dtype[Any]:
        """NumPy's; E4M3 comes with onnx."""
        if self.name == "int8":
            return np.dtype(np.int8)
        import ml_dtypes

        return np.dtype(ml_dtypes.float8_e4m3fn)


# Without VNNI a CPU adds the products of two neighbouring input channels in saturating 16 bits. Activations reach 255
# there (zero point moved), and 255 x 128 = 32640 fits. All weights in 7 bits (`reduce_range`) would fit as well and are
# coarser: the relative RMS error of ccp13-lite0's weights is 0.0075 in 8 bits, 0.0100 in pairs and 0.0146 in 7 bits.
NARROW_TYPES = {
    "int8": NarrowType("int8", INT8_LEVELS, 18),
    NO_VNNI: NarrowType("int8", INT8_LEVELS, 18, pair_top=128.0),
    "fp8": NarrowType("fp8", 448.0, 19),
}


def int8_of_this_cpu() -> str:
    """The key of NARROW_TYPES whose graph this CPU computes without saturation."""
    return NO_VNNI if sums_saturate() else "int8"


def quantise(graph: bytes, scales: Scales, precision: str = "int8") -> bytes:
    """FP32 ONNX graph -> Q/DQ ONNX graph with the same inputs and outputs; the same input gives the same bytes.

    Args:
        graph: contents of the FP32 ONNX file.
        precision: a key of NARROW_TYPES.
    Raises:
        QanetError: scales of another graph or not complete (see `Scales.check`), broken ONNX, a scale too small.
    """
    quantised: bytes = insert_qdq(scales.check(graph), scales, precision).SerializeToString(deterministic=True)
    return quantised


def insert_qdq(model: Any, scales: Scales, precision: str = "int8") -> Any:
    """A copy of an onnx.ModelProto of `load_model` with Q/DQ inserted.

    Args:
        precision: a key of NARROW_TYPES.
    Raises:
        QanetError: unknown precision, a range is missing, or too small for a scale.
    """
    import onnx

    if precision not in NARROW_TYPES:
        raise QanetError(f"unknown precision {precision!r}; choose from {', '.join(NARROW_TYPES)}")
    narrow = NARROW_TYPES[precision]
    scales.check_complete(model)
    placement = place(model, scales.keep)
    quantised = deepcopy(model)
    graph = quantised.graph
    opset = next(entry for entry in quantised.opset_import if entry.domain in ("", "ai.onnx"))
    opset.version = max(opset.version, narrow.opset)  # the operators of a parsing graph are the same in 18 and 19
    amax = {name: max(scales.ranges[donor].amax for donor in placement.range_of[name]) for name in placement.readers}
    pairs = {name: _pair(name, value, narrow) for name, value in amax.items()}
    weights = _weights(graph, placement, narrow)
    for name, readers in placement.readers.items():
        for index, position in readers:
            graph.node[index].input[position] = f"{name}.dq"
    _reassemble(graph, pairs, weights, narrow)
    del graph.value_info[:]
    quantised = onnx.shape_inference.infer_shapes(quantised, strict_mode=True)
    onnx.checker.check_model(quantised, full_check=True)
    return quantised


def quantise_weight(
    weight: NDArray[np.float32], narrow: NarrowType = NARROW_TYPES["int8"], is_depthwise: bool = False
) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Per output channel (axis 0): float32 (M, ...) -> int8 or E4M3 of the same shape and scales (M,) float32.

    Args:
        is_depthwise: of a depthwise convolution, whose kernels add nothing in pairs.
    """
    amax = np.abs(weight).reshape(len(weight), -1).max(1)
    finest = amax / narrow.top
    pair_top = None if is_depthwise else narrow.pair_top
    if pair_top is not None:
        finest = np.maximum(finest, _largest_pairs(weight) / pair_top)
    scale = np.maximum(finest, SMALLEST_SCALE).astype(np.float32)
    steps = np.clip(weight / scale.reshape(-1, *[1] * (weight.ndim - 1)), -narrow.top, narrow.top)
    if narrow.name != "int8":
        return steps.astype(narrow.dtype), scale
    rounded = np.rint(steps)
    if pair_top is not None and weight.shape[1] % 2 == 0:  # both of a pair may have been rounded up
        first, second = rounded[:, ::2], rounded[:, 1::2]
        first -= np.sign(first) * (np.abs(first) + np.abs(second) > pair_top)
    return rounded.astype(narrow.dtype), scale


def _largest_pairs(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """(M,) largest sum of magnitudes of two neighbouring input channels (axis 1) at one place of the kernel.

    With an odd number of them a runtime's pairs may go from one place to the next, so that any two count.
    """
    size = np.abs(weight)
    pairs = 2 * size if weight.shape[1] % 2 else size[:, ::2] + size[:, 1::2]
    return np.asarray(pairs.reshape(len(weight), -1).max(1), np.float32)


def _tensor(name: str, values: NDArray[Any]) -> Any:
    """A constant; E4M3 by its bytes, which every version of onnx takes."""
    import onnx

    if values.dtype.name != "float8_e4m3fn":
        return onnx.numpy_helper.from_array(values, name)
    kind = onnx.TensorProto.FLOAT8E4M3FN
    return onnx.helper.make_tensor(name, kind, values.shape, values.tobytes(), raw=True)


def _pair(name: str, amax: float, narrow: NarrowType) -> tuple[list[Any], list[Any]]:
    """Nodes and constants of one activation's Q and DQ."""
    import onnx

    scale = amax / narrow.top
    if scale < SMALLEST_SCALE:
        raise QanetError(
            f"the range of tensor {name!r} is too small for {narrow.name.upper()}",
            got=amax,
            expected=f"amax >= {SMALLEST_SCALE * narrow.top:.4f}",
            next_command="keep the layers that read it in float",
        )
    inputs = [f"{name}.scale", f"{narrow.name}.zero_point"]
    quantise = onnx.helper.make_node("QuantizeLinear", [name, *inputs], [f"{name}.q"], name=f"{name}.q")
    dequantise = onnx.helper.make_node("DequantizeLinear", [f"{name}.q", *inputs], [f"{name}.dq"], name=f"{name}.dq")
    return [quantise, dequantise], [_tensor(f"{name}.scale", np.array(scale, np.float32))]


def _weights(graph: Any, placement: Placement, narrow: NarrowType) -> dict[str, tuple[list[Any], list[Any]]]:
    """Weight name -> its DQ node and narrow constants; rewires the convolutions to read the DQ."""
    import onnx

    constants = {tensor.name: tensor for tensor in graph.initializer}
    made: dict[str, tuple[list[Any], list[Any]]] = {}
    for index in placement.convolutions:
        name = graph.node[index].input[1]
        graph.node[index].input[1] = f"{name}.dq"
        if name in made:
            continue
        values, scale = quantise_weight(
            onnx.numpy_helper.to_array(constants[name]), narrow, _is_depthwise(graph, index)
        )
        zero_points = np.zeros(len(scale), narrow.dtype)
        tensors: dict[str, NDArray[Any]] = {narrow.name: values, "scale": scale, "zero_point": zero_points}
        node = onnx.helper.make_node(
            "DequantizeLinear", [f"{name}.{part}" for part in tensors], [f"{name}.dq"], name=f"{name}.dq", axis=0
        )
        made[name] = [node], [_tensor(f"{name}.{part}", array) for part, array in tensors.items()]
    return made


def _is_depthwise(graph: Any, index: int) -> bool:
    """Whether a convolution has one input channel a group."""
    node = graph.node[index]
    group = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
    weight = next(tensor for tensor in graph.initializer if tensor.name == node.input[1].removesuffix(".dq"))
    return group > 1 and weight.dims[1] == 1


def _reassemble(graph: Any, pairs: dict[str, Any], weights: dict[str, Any], narrow: NarrowType) -> None:
    """Put every new node right before its first reader, and drop the float weights that nothing reads any more."""
    pending = {nodes[-1].output[0]: (nodes, tensors) for nodes, tensors in (*pairs.values(), *weights.values())}
    zero = _tensor(f"{narrow.name}.zero_point", np.zeros((), narrow.dtype))
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


def requantised_without_vnni(data: bytes) -> bytes:
    """An INT8 ONNX graph with its weights quantised once more, in pairs: for graphs that came without their scales.

    Weights that are rounded twice are a little worse than those that `insert_qdq` makes of the float weights.
    """
    import onnx

    model = onnx.load_model_from_string(data)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {node.output[0]: node for node in model.graph.node if node.op_type == "DequantizeLinear"}
    done: set[str] = set()
    for node in model.graph.node:
        maker = makers.get(node.input[1]) if node.op_type == "Conv" else None
        if maker is None or maker.input[0] in done or not {*maker.input[:2]} <= constants.keys():
            continue
        weight, scale = (constants[name] for name in maker.input[:2])
        done.add(weight.name)
        values, scales = (onnx.numpy_helper.to_array(tensor) for tensor in (weight, scale))
        exact = values.astype(np.float32) * scales.reshape(-1, *[1] * (values.ndim - 1))
        groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
        narrow, finest = quantise_weight(exact, NARROW_TYPES[NO_VNNI], groups > 1 and values.shape[1] == 1)
        weight.CopyFrom(onnx.numpy_helper.from_array(narrow, weight.name))
        scale.CopyFrom(onnx.numpy_helper.from_array(finest.astype(scales.dtype), scale.name))
    serialised: bytes = model.SerializeToString(deterministic=True)
    return serialised
