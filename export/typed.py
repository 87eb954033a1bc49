"""FP32 (or Q/DQ) ONNX graph -> strongly typed FP16 graph: the network in FP16, what surrounds it in FP32.

The network is what lies between the first and the last layer with weights: every node that depends on a Conv or
Gemm and that a Conv or Gemm depends on. Before it is the normalisation of uint8 pixels, behind it the upsampling,
softmax, scores and QAM; both stay FP32. Inside, a node is FP16 if its operator is in FP16_OPERATORS; a reduction
is not (6,912 values of 10 do not sum in FP16) and is wrapped in casts. Inputs and outputs keep names and types:
`logits` are computed in FP16 and cast.

Types are written, then proved by the ONNX checker with strict inference; nothing is decided by running the graph,
since ONNX Runtime's CPU provider computes FP16 in FP32 and hides an overflow.

A Q/DQ graph is taken too: layers that read a DequantizeLinear, and the activation behind them, keep FP32 scales and
types, and what INT8 leaves in float becomes FP16. The other way, FP16 scales (opset 19), was tried and dropped: the
graph is right (ONNX's reference evaluator: 99.7% of labels as in FP32), but ONNX Runtime 1.32 quantises biases on its
own, bias / (scale x scale) in FP16, which overflows: 89.9%, silently. TensorRT-RTX 1.7 makes the same 155 layers of
both. Which INT8 graph to build from, measured on the CCP network at 384x288: OpenVINO runs the same 54 of 59
convolutions in INT8 with the same reorders and time from the FP32 one, so it takes that as it is; TensorRT-RTX has
155 layers either way but its five float convolutions become half, so it takes this one.
"""

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qanet.errors import QanetError

# fmt: off
FP16_OPERATORS = frozenset((
    "Add", "AveragePool", "Clip", "Concat", "Conv", "ConvTranspose", "Flatten", "Gemm", "HardSigmoid", "HardSwish",
    "Identity", "LeakyRelu", "MatMul", "MaxPool", "Mul", "Pad", "Relu", "Reshape", "Resize", "Sigmoid", "Slice",
    "Split", "Squeeze", "Sub", "Tanh", "Transpose", "Unsqueeze",
))
# fmt: on
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_FLOAT32_INPUTS = {"Resize": (1, 2)}  # its region and its scales, whatever the type of its data


def to_fp16(model: Any) -> Any:
    """A typed FP16 copy of the graph; deterministic.

    Args:
        model: onnx.ModelProto, opset 18 or later, FP32 or FP32 with INT8 Q/DQ.
    Returns:
        onnx.ModelProto with the same opset, inputs and outputs.
    Raises:
        QanetError: no layer with weights, a constant that overflows FP16 or all of which vanishes in it, or a result
            that the checker refuses.
    """
    typed = deepcopy(model)
    graph = typed.graph
    halves = _network(graph)
    writer = _Writer(_float_types(model), made={(value.name, False): value.name for value in graph.input})
    outputs = {value.name for value in graph.output}
    for index, node in enumerate(graph.node):
        writer.append(node, index in halves, outputs)
    initialisers = writer.initialisers(graph.initializer)
    nodes = [deepcopy(node) for node in writer.nodes]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(initialisers)
    return _proved(typed)


def _network(graph: Any) -> set[int]:
    """Indices of the nodes that become FP16."""
    weighted = [index for index, node in enumerate(graph.node) if node.op_type in _WEIGHTED]
    if not weighted:
        raise QanetError(
            "the graph has no layer with weights", expected="a Conv or Gemm",
            got=sorted({node.op_type for node in graph.node}), next_command="qanet export CHECKPOINT",
        )  # fmt: skip
    readers: dict[str, list[int]] = {}
    producer: dict[str, int] = {}
    for index, node in enumerate(graph.node):
        for name in node.input:
            readers.setdefault(name, []).append(index)
        for name in node.output:
            producer[name] = index
    behind = _reach(weighted, lambda i: [r for name in graph.node[i].output for r in readers.get(name, ())])
    before = _reach(weighted, lambda i: [producer[name] for name in graph.node[i].input if name in producer])
    inside = {index for index in behind & before if graph.node[index].op_type in FP16_OPERATORS}
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
    """Rewrites nodes in order; keeps for every float tensor the name of its FP32 and of its FP16 form.

    Attributes:
        floats: names of the tensors that were float32.
        nodes: the new nodes, casts included.
        made: (tensor, is FP16) -> name of that form, for activations.
        constants: float32 constants wanted in FP16.
    """

    floats: set[str]
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
            node.output[position] = f"{name}.fp16" if public else name
            self.made[name, half] = node.output[position]
            if public:
                self._cast(name, to_half=False, output=name)

    def _form(self, name: str, half: bool) -> str:
        """The name of a tensor in FP16 or FP32; inserts the cast where that form is not there yet."""
        if (name, half) in self.made:
            return self.made[name, half]
        if (name, not half) in self.made:
            return self._cast(name, to_half=half, output=f"{name}.{'fp16' if half else 'fp32'}")
        if not half:
            return name
        self.constants.add(name)
        return f"{name}.fp16"

    def _cast(self, name: str, *, to_half: bool, output: str) -> str:
        import onnx

        kind = onnx.TensorProto.FLOAT16 if to_half else onnx.TensorProto.FLOAT
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
                kept.append(_half(tensor))
        return kept


def _half(tensor: Any) -> Any:
    """A float32 constant in FP16, named `<name>.fp16`; QanetError where FP16 cannot hold it."""
    import onnx

    values = onnx.numpy_helper.to_array(tensor)
    with np.errstate(over="ignore"):
        halves = values.astype(np.float16)
    largest = float(np.abs(values).max(initial=0.0))
    name = tensor.name
    if not np.isfinite(halves).all():
        raise QanetError(f"{name!r} overflows FP16", expected="magnitudes up to 65504", got=f"{largest:g}")
    if values.any() and not halves.any():
        raise QanetError(f"{name!r} is all zero in FP16", expected="magnitudes above 6e-8", got=f"at most {largest:g}")
    return onnx.numpy_helper.from_array(halves, f"{name}.fp16")


def _proved(model: Any) -> Any:
    """The model with all its types inferred; QanetError where they do not fit."""
    import onnx

    try:
        typed = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
        onnx.checker.check_model(typed, full_check=True)
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError) as error:
        raise QanetError("the typed graph is not valid", got=str(error).splitlines()[0]) from error
    return typed
