"""Multiply-adds of each convolution and matrix product of an ONNX graph, at batch 1."""

from dataclasses import dataclass
from math import prod
from typing import Any

from qanet.errors import QanetError

CONVOLUTIONS = ("Conv", "ConvTranspose")
COMPUTES = (*CONVOLUTIONS, "Gemm", "MatMul")
_Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class ComputeNode:
    """An ONNX node that multiplies matrices.

    Attributes:
        op: ONNX operator: Conv, ConvTranspose, Gemm or MatMul.
        multiply_adds: multiplications with an addition, for one crop.
    """

    op: str
    multiply_adds: int


def compute_nodes(model: Any) -> dict[str, ComputeNode]:
    """Find where the arithmetic is.

    Args:
        model: onnx.ModelProto whose inputs are dynamic in the first axis only; not changed.

    Returns:
        Node name -> ComputeNode, in the graph's order. Q/DQ graphs count like the float graph they came from.

    Raises:
        QanetError: a node whose shapes cannot be inferred.
    """
    shapes = _shapes_at_batch_one(model)
    found = {}
    for node in model.graph.node:
        if node.op_type in COMPUTES:
            try:
                count = _multiply_adds(node, shapes)
            except KeyError as error:
                raise QanetError(f"the shape of {error} at node {node.name} cannot be inferred") from error
            found[node.name] = ComputeNode(node.op_type, count)
    return found


def _multiply_adds(node: Any, shapes: _Shapes) -> int:
    data, weights, output = (shapes[name] for name in (node.input[0], node.input[1], node.output[0]))
    if node.op_type == "Conv":  # weights (M, C / groups, k, k): each output element is one filter's dot product
        return prod(output) * prod(weights[1:])
    if node.op_type == "ConvTranspose":  # weights (C, M / groups, k, k): each input element is spread by its filters
        return prod(data) * prod(weights[1:])
    transposed = any(a.name == "transA" and a.i for a in node.attribute)
    return prod(output) * (data[-2] if transposed else data[-1])


def _shapes_at_batch_one(model: Any) -> _Shapes:
    """Every tensor's static shape, the batch set to 1; tensors whose shape stays unknown are left out."""
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    del graph.value_info[:]  # they name the dynamic batch, which would win over what is inferred from 1
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")
    for value in graph.input:
        for axis in value.type.tensor_type.shape.dim[:1]:
            axis.dim_value = 1
    graph = onnx.shape_inference.infer_shapes(copy, data_prop=True).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.value_info, *graph.input, *graph.output):
        tensor = value.type.tensor_type
        axes = tensor.shape.dim
        if tensor.HasField("shape") and all(axis.HasField("dim_value") for axis in axes):
            shapes[value.name] = tuple(axis.dim_value for axis in axes)
    return shapes
