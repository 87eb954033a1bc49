"""Reading the ONNX graph that engines are built from: checked, cut down to some outputs, every node named, its size.

Graphs are the contents of one ONNX file, weights included.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from qanet.errors import QanetError

CROPS, BOX_SCORES = "crops", "box_scores"
CONVOLUTIONS = ("Conv", "ConvTranspose")
COMPUTES = (*CONVOLUTIONS, "Gemm", "MatMul")
_Shapes = dict[str, tuple[int, ...]]


def load_graph(graph: bytes, outputs: Sequence[str] | None = None, name: str = "model.onnx") -> Any:
    """Read a parsing graph.

    A tail made of kernels needs the logits and no label map, so the graph is cut before the builder sees it: no
    runtime then has to be trusted to drop dead layers, and an input that no kept output needs disappears everywhere.

    Args:
        graph: contents of an ONNX file with the inputs `crops` uint8 (N, H, W, 3) and, if its outputs need it,
            `box_scores` float32 (N,).
        outputs: names to keep, in this order; None keeps all.
        name: of the graph, for errors.

    Returns:
        An onnx.ModelProto with a name on every node (the census goes by node names).

    Raises:
        QanetError: as `parse_graph`, an input outside the contract, or an output that the graph does not have.
    """
    model = parse_graph(graph, name)
    if outputs is not None:
        model = _cut(model, tuple(outputs), name)
    _check_inputs(model, name)
    _name_nodes(model)
    return model


def parse_graph(graph: bytes, name: str = "model.onnx") -> Any:
    """Read an ONNX graph of which this machine's onnx knows every operator.

    Args:
        graph: contents of an ONNX file.
        name: of the graph, for errors.

    Returns:
        An onnx.ModelProto.

    Raises:
        QanetError: not ONNX or cut off, of a newer opset, with an operator that is not ONNX's own, or with weights in
            another file.
    """
    import onnx

    try:
        model = onnx.load_model_from_string(graph)
    except Exception as error:  # protobuf's DecodeError
        raise QanetError(
            f"cannot read {name} as ONNX",
            got=f"{str(error) or type(error).__name__} in {len(graph)} bytes",
            next_command="export it again: the file is cut off, or something else",
        ) from error
    if not model.graph.output:
        raise QanetError(f"{name} is not an ONNX graph", expected="a graph with outputs", got="none")
    _check_operators(model, name)
    for tensor in model.graph.initializer:
        if onnx.external_data_helper.uses_external_data(tensor):
            location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
            raise QanetError(
                f"{name} has weights outside the file itself", expected=f"{tensor.name} inside", got=location
            )
    return model


def _check_operators(model: Any, name: str) -> None:
    import onnx

    known = onnx.defs.onnx_opset_version()
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    opset = opsets.get("", opsets.get("ai.onnx", known))
    if opset > known or model.ir_version > onnx.IR_VERSION:
        raise QanetError(
            f"{name} is newer than the onnx installed here",
            expected=f"opset {known} or older",
            got=f"opset {opset}, IR version {model.ir_version}",
            next_command="pip install --upgrade onnx",
        )
    for node in model.graph.node:
        domain = "" if node.domain == "ai.onnx" else node.domain
        if not onnx.defs.has(node.op_type, opsets.get(domain, opset), domain):
            full = f"{domain}.{node.op_type}" if domain else node.op_type
            raise QanetError(
                f"{name} has an unknown operator {full} at node {node.name!r}",
                expected=f"operators of opset {opset}",
                next_command="export without operators of one runtime's own",
            )


def input_shapes(model: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of the inputs without the batch axis: {"crops": (H, W, 3), "box_scores": ()}, pixels."""
    return {value.name: tuple(d.dim_value for d in value.type.tensor_type.shape.dim[1:]) for value in model.graph.input}


def _cut(model: Any, outputs: tuple[str, ...], name: str) -> Any:
    import onnx.utils

    known = [value.name for value in model.graph.output]
    unknown = [output for output in outputs if output not in known]
    if unknown or not outputs:
        raise QanetError(
            f"{name} has no such output", expected=f"some of {', '.join(known)}", got=", ".join(unknown) or "no names"
        )
    inputs = [value.name for value in model.graph.input]
    cut = onnx.utils.Extractor(model).extract_model(inputs, list(outputs))
    read = {tensor for node in cut.graph.node for tensor in node.input}
    kept = [value for value in cut.graph.input if value.name in read]
    del cut.graph.input[:]
    cut.graph.input.extend(kept)
    return cut


def _check_inputs(model: Any, name: str) -> None:
    from onnx import TensorProto

    types = {CROPS: (TensorProto.UINT8, 4), BOX_SCORES: (TensorProto.FLOAT, 1)}
    for value in model.graph.input:
        tensor = value.type.tensor_type
        kind, rank = TensorProto.DataType.Name(tensor.elem_type).lower(), len(tensor.shape.dim)
        if types.get(value.name) != (tensor.elem_type, rank):
            raise QanetError(
                f"{name} does not have the inputs of a parsing graph",
                expected="crops uint8 (N, H, W, 3) and box_scores float32 (N,)",
                got=f"{value.name} {kind} of rank {rank}",
                next_command="qanet export CHECKPOINT",
            )
        if value.name == CROPS and not all(d.dim_value > 0 for d in tensor.shape.dim[1:]):
            raise QanetError(f"{name}: only the batch may be dynamic", expected="crops (N, H, W, 3) with H and W set")
    if CROPS not in {value.name for value in model.graph.input}:
        raise QanetError(f"{name} does not have the input crops", got=[value.name for value in model.graph.input])


def _name_nodes(model: Any) -> None:
    """Give every node a unique name; convolutions and products keep theirs, other nodes are renamed."""
    nodes = model.graph.node
    taken: set[str] = set()
    for index in sorted(range(len(nodes)), key=lambda i: nodes[i].op_type not in COMPUTES):
        node = nodes[index]
        stem = name = node.name or f"{node.op_type}_{index}"
        if name in taken:
            name = f"{stem}.{node.op_type.lower()}"
        while name in taken:
            name += "_"
        node.name = name
        taken.add(name)


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
    """Find the convolutions and matrix products, and what they compute.

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


def graph_size(graph: bytes) -> dict[str, int]:
    """Count the weights and the arithmetic of the convolutions and matrix products.

    Args:
        graph: contents of an FP32 ONNX file, dynamic in the first axis only.

    Returns:
        "parameters": their weights and biases, into which the exporter has folded batch norm.
        "multiply_adds": for one crop; biases are not counted.

    Raises:
        QanetError: not an ONNX graph, or one whose shapes cannot be inferred.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_model_from_string(graph)
    except DecodeError as error:
        raise QanetError("the graph is not an ONNX graph", got=error) from error
    sizes = {tensor.name: prod(tensor.dims) for tensor in model.graph.initializer}
    used = {name for node in model.graph.node if node.op_type in COMPUTES for name in node.input[1:]}
    return {
        "parameters": sum(size for name, size in sizes.items() if name in used),
        "multiply_adds": sum(node.multiply_adds for node in compute_nodes(model).values()),
    }
