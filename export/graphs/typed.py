"""FP32 (or Q/DQ) ONNX graph -> strongly typed graph: the network in FP16 or BF16, the rest in FP32; and a bundle's set.

The network is what lies between the first and the last layer with weights: every node that depends on a Conv or
Gemm and that a Conv or Gemm depends on. Before it is the normalisation of uint8 pixels, behind it the upsampling,
softmax, scores and QAM; both stay FP32. Inside, a node takes 16 bits if its operator is in HALF_OPERATORS; a reduction
does not (6,912 values of 10 do not sum in FP16) and is wrapped in casts. Inputs and outputs keep names and types:
`logits` are computed in 16 bits and cast.

FP16 ends at 65504. A node that reads or makes an activation whose largest magnitude in calibration passes FP16_BOUND,
half of that, stays FP32; without a calibration none does. BF16 has the range of FP32 and needs
no such exception.

Types are written, then proved by the ONNX checker with strict inference; nothing is decided by running the graph,
since ONNX Runtime's CPU provider computes FP16 in FP32 and hides an overflow.

A Q/DQ graph is accepted too: layers that read a DequantizeLinear, and the activation behind them, keep FP32 scales and
types, and what INT8 leaves in float becomes FP16. The other way, FP16 scales (opset 19), was tried and dropped: the
graph is right (ONNX's reference evaluator: 99.7% of labels as in FP32), but ONNX Runtime 1.32 quantises biases on its
own, bias / (scale x scale) in FP16, which overflows: 89.9%, silently. TensorRT-RTX 1.7 makes the same 155 layers of
both. Which INT8 graph to build from, measured on the CCP network at 384x288: OpenVINO runs the same 54 of 59
convolutions in INT8 with the same reorders and time from the FP32 one, so it gets that one; TensorRT-RTX has
155 layers either way but its five float convolutions become half, so it gets the typed one.
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qanet.bundle import NO_VNNI, Bundle
from qanet.calib.bundle import SCALES, add_quantised_graph
from qanet.calib.quantize import NARROW_TYPES, requantised_without_vnni
from qanet.calib.scales import parse_scales
from qanet.errors import QanetError
from qanet.export.graphs.source import parse_graph

HALF_OPERATORS = frozenset(
    (
        *("Add", "AveragePool", "Clip", "Concat", "Conv", "ConvTranspose", "Flatten", "Gemm", "HardSigmoid"),
        *("HardSwish", "Identity", "LeakyRelu", "MatMul", "MaxPool", "Mul", "Pad", "Relu", "Reshape", "Resize"),
        *("Sigmoid", "Slice", "Split", "Squeeze", "Sub", "Tanh", "Transpose", "Unsqueeze"),
    )
)
FP16_BOUND = 32752.0  # half of FP16's end: other images than those of the calibration may go further
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_FLOAT32_INPUTS = {"Resize": (1, 2)}  # its region and its scales, whatever the type of its data


@dataclass(frozen=True)
class HalfType:
    """A 16-bit type: its name, its number in ONNX, the largest value, and the least one that is not zero."""

    name: str
    onnx: int
    largest: float
    smallest: float

    @property
    def dtype(self) -> np.dtype[Any]:
        """NumPy's; BF16 comes with onnx."""
        if self.name == "fp16":
            return np.dtype(np.float16)
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)


BF16_OPSET = 22  # the first whose Conv takes BF16; TensorRT-RTX 1.7 and OpenVINO read it, ONNX Runtime's CPU does not
FP16 = HalfType("fp16", 10, 65504.0, 6e-8)
BF16 = HalfType("bf16", 16, 3.3e38, 9e-41)


def to_fp16(model: Any, largest: Mapping[str, float] | None = None) -> Any:
    """A typed FP16 copy of the graph; deterministic.

    Args:
        model: onnx.ModelProto, opset 18 or later, FP32 or FP32 with INT8 or FP8 Q/DQ.
        largest: activation -> largest magnitude seen in calibration (`largest_activations`); None: not calibrated.
    Returns:
        onnx.ModelProto with the same opset, inputs and outputs.
    Raises:
        QanetError: no layer with weights, a constant that overflows FP16 or all of which vanishes in it, or a result
            that the checker refuses.
    """
    return _typed(model, FP16, beyond_fp16(model, largest or {}))


def to_bf16(model: Any) -> Any:
    """A typed BF16 copy of the graph, opset BF16_OPSET or later; otherwise as `to_fp16`."""
    return _typed(model, BF16, set())


def beyond_fp16(model: Any, largest: Mapping[str, float]) -> set[str]:
    """Names of the nodes that read or make an activation beyond FP16_BOUND."""
    beyond = {name for name, value in largest.items() if value > FP16_BOUND}
    return {node.name for node in model.graph.node if not beyond.isdisjoint((*node.input, *node.output))}


def _typed(model: Any, half: HalfType, keep: set[str]) -> Any:
    """The copy in which the network's nodes, but those named in `keep`, have the 16-bit type."""
    typed = deepcopy(model)
    if half is BF16:
        _raise_opset(typed)
    graph = typed.graph
    halves = {index for index in _network(graph) if graph.node[index].name not in keep}
    writer = _Writer(_float_types(model), half, made={(value.name, False): value.name for value in graph.input})
    outputs = {value.name for value in graph.output}
    for index, node in enumerate(graph.node):
        writer.append(node, index in halves, outputs)
    initialisers = writer.initialisers(graph.initializer)
    nodes = [deepcopy(node) for node in writer.nodes]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(initialisers)
    return _proved(typed)


def _raise_opset(model: Any) -> None:
    """To BF16_OPSET: what a parsing graph is made of kept its meaning since 18; the checker sees the result."""
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = max(entry.version, BF16_OPSET)


def _network(graph: Any) -> set[int]:
    """Indices of the nodes that take 16 bits."""
    weighted = [index for index, node in enumerate(graph.node) if node.op_type in _WEIGHTED]
    if not weighted:
        raise QanetError(
            "the graph has no layer with weights",
            expected="a Conv or Gemm",
            got=sorted({node.op_type for node in graph.node}),
            next_command="qanet export CHECKPOINT",
        )
    readers: dict[str, list[int]] = {}
    producer: dict[str, int] = {}
    for index, node in enumerate(graph.node):
        for name in node.input:
            readers.setdefault(name, []).append(index)
        for name in node.output:
            producer[name] = index
    behind = _reach(weighted, lambda i: [r for name in graph.node[i].output for r in readers.get(name, ())])
    before = _reach(weighted, lambda i: [producer[name] for name in graph.node[i].input if name in producer])
    inside = {index for index in behind & before if graph.node[index].op_type in HALF_OPERATORS}
    return inside - _int8_layers(graph, producer)


def _int8_layers(graph: Any, producer: dict[str, int]) -> set[int]:
    """Nodes that read a DequantizeLinear, and a Relu or Clip behind such a node: no cast may come between those."""
    layers: set[int] = set()
    for index, node in enumerate(graph.node):
        makers = [producer[name] for name in node.input if name in producer]
        dequantised = any(graph.node[maker].op_type == "DequantizeLinear" for maker in makers)
        if dequantised or (node.op_type in ("Relu", "Clip") and not layers.isdisjoint(makers)):
            layers.add(index)
    return layers


def _reach(start: list[int], neighbours: Any) -> set[int]:
    """Indices reachable from `start`, itself included."""
    seen, stack = set(start), list(start)
    while stack:
        for index in neighbours(stack.pop()):
            if index not in seen:
                seen.add(index)
                stack.append(index)
    return seen


def _float_types(model: Any) -> set[str]:
    """Names of all float32 tensors of the graph, constants included."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = (*inferred.value_info, *inferred.input, *inferred.output)
    names = {value.name for value in values if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    return names | {tensor.name for tensor in inferred.initializer if tensor.data_type == onnx.TensorProto.FLOAT}


@dataclass
class _Writer:
    """Rewrites nodes in order; keeps for every float tensor the name of its FP32 and of its 16-bit form.

    Attributes:
        floats: names of the tensors that were float32.
        half: the 16-bit type.
        nodes: the new nodes, casts included.
        made: (tensor, has 16 bits) -> name of that form, for activations.
        constants: float32 constants wanted in 16 bits.
    """

    floats: set[str]
    half: HalfType
    nodes: list[Any] = field(default_factory=list)
    made: dict[tuple[str, bool], str] = field(default_factory=dict)
    constants: set[str] = field(default_factory=set)

    def append(self, node: Any, half: bool, outputs: set[str]) -> None:
        """Add one node with inputs and outputs of its type."""
        fixed = _FLOAT32_INPUTS.get(node.op_type, ())
        for position, name in enumerate(node.input):
            if name in self.floats:
                node.input[position] = self._form(name, half and position not in fixed)
        self.nodes.append(node)
        for position, name in enumerate(node.output):
            if name not in self.floats:
                continue
            public = half and name in outputs  # an output of the graph keeps its name for the FP32 form
            node.output[position] = f"{name}.{self.half.name}" if public else name
            self.made[name, half] = node.output[position]
            if public:
                self._cast(name, to_half=False, output=name)

    def _form(self, name: str, half: bool) -> str:
        """The name of a tensor in 16 bits or FP32; inserts the cast where that form is not there yet."""
        if (name, half) in self.made:
            return self.made[name, half]
        if (name, not half) in self.made:
            return self._cast(name, to_half=half, output=f"{name}.{self.half.name if half else 'fp32'}")
        if not half:
            return name
        self.constants.add(name)
        return f"{name}.{self.half.name}"

    def _cast(self, name: str, *, to_half: bool, output: str) -> str:
        import onnx

        kind = self.half.onnx if to_half else onnx.TensorProto.FLOAT
        source = self.made[name, not to_half]
        self.nodes.append(onnx.helper.make_node("Cast", [source], [output], name=f"{output}.cast", to=kind))
        self.made[name, to_half] = output
        return output

    def initialisers(self, tensors: Any) -> list[Any]:
        """The constants that are still read, each in the forms that are read."""
        read = {name for node in self.nodes for name in node.input}
        kept = []
        for tensor in tensors:
            if tensor.name in read:
                kept.append(deepcopy(tensor))
            if tensor.name in self.constants:
                kept.append(_half(tensor, self.half))
        return kept


def _half(tensor: Any, half: HalfType) -> Any:
    """A float32 constant in 16 bits, named `<name>.<type>`; QanetError where the type cannot hold it."""
    import onnx

    values = onnx.numpy_helper.to_array(tensor)
    with np.errstate(over="ignore"):
        halves = values.astype(half.dtype)
    back = halves.astype(np.float32)
    largest = float(np.abs(values).max(initial=0.0))
    name, kind = tensor.name, half.name.upper()
    if not np.isfinite(back).all():
        raise QanetError(
            f"{name!r} overflows {kind}", expected=f"magnitudes up to {half.largest:g}", got=f"{largest:g}"
        )
    if values.any() and not back.any():
        raise QanetError(
            f"{name!r} is all zero in {kind}",
            expected=f"magnitudes above {half.smallest:g}",
            got=f"at most {largest:g}",
        )
    return onnx.helper.make_tensor(f"{name}.{half.name}", half.onnx, values.shape, halves.tobytes(), raw=True)


def _proved(model: Any) -> Any:
    """The model with all its types inferred; QanetError where they do not fit."""
    import onnx

    try:
        typed = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
        onnx.checker.check_model(typed, full_check=True)
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError) as error:
        raise QanetError("the typed graph is not valid", got=str(error).splitlines()[0]) from error
    return typed


def write_typed_graph(bundle: Bundle, precision: str) -> None:
    """Add the bundle's graph of a precision where it is missing, or older than the weights or the scales; not saved.

    Args:
        precision: of the graph, or NO_VNNI.
    Raises:
        QanetError: a broken FP32 graph, or INT8 without scales.
    """
    if precision == NO_VNNI:
        write_typed_graph(bundle, "int8")  # for GPUs and other CPUs
    source = parse_graph(bundle.graph("fp32"))  # refuses a broken graph before anything is written
    if precision == "fp32":
        return
    sources = [bundle.manifest["files"].get(file, {}).get("sha256", "")[:16] for file in ("model.onnx", SCALES)]
    made = bundle.manifest["made"].setdefault("typed_from", {})
    known = made.get(precision, sources if precision in NARROW_TYPES else None)  # calibration wrote it itself
    if precision in bundle.manifest["graphs"] and known == sources:
        made[precision] = sources
        return
    if precision == NO_VNNI and SCALES not in bundle.manifest["files"] and "int8" in bundle.manifest["graphs"]:
        bundle.add_file(f"model.{precision}.onnx", requantised_without_vnni(bundle.graph("int8")))
        bundle.manifest["graphs"][precision] = f"model.{precision}.onnx"
    elif precision in NARROW_TYPES:
        add_quantised_graph(bundle, precision)
    else:
        typed = to_bf16(source) if precision == "bf16" else to_fp16(source, largest_activations(bundle))
        bundle.add_file(f"model.{precision}.onnx", typed.SerializeToString(deterministic=True))
        bundle.manifest["graphs"][precision] = f"model.{precision}.onnx"
    made[precision] = sources


def largest_activations(bundle: Bundle) -> dict[str, float]:
    """Activation -> largest magnitude in calibration; empty for a bundle that was not calibrated."""
    if SCALES not in bundle.manifest["files"]:
        return {}
    scales = parse_scales(bundle.read(SCALES))
    return {name: entry.largest for name, entry in scales.ranges.items()} | scales.largest


def builder_graph(bundle: Bundle, precision: str, runtime: str, graph: bytes | None = None) -> bytes:
    """The ONNX graph that a runtime builds from: what INT8 leaves in floating point is FP16 for TensorRT.

    Args:
        precision: key of the bundle's graph.
        runtime: "openvino", "tensorrt" or "tensorrt-rtx".
        graph: ONNX file contents in place of the bundle's graph of that precision.
    """
    data = bundle.graph(precision) if graph is None else graph
    if precision not in NARROW_TYPES or runtime == "openvino":
        return data
    typed: bytes = to_fp16(parse_graph(data), largest_activations(bundle)).SerializeToString(deterministic=True)
    return typed
