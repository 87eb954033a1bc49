"""How large an exported graph is: its weights and the multiply-adds of one crop."""

from math import prod

from qanet.errors import QanetError
from qanet.export.engines.multiply_adds import COMPUTES, compute_nodes


def graph_size(data: bytes) -> dict[str, int]:
    """Count the weights and the arithmetic of the convolutions and matrix products.

    Args:
        data: the bytes of an FP32 ONNX graph, dynamic in the first axis only.

    Returns:
        "parameters": their weights and biases, into which the exporter has folded batch norm.
        "multiply_adds": for one crop; biases are not counted.

    Raises:
        QanetError: not an ONNX graph, or one whose shapes cannot be inferred.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_model_from_string(data)
    except DecodeError as error:
        raise QanetError("the graph is not an ONNX graph", got=error) from error
    sizes = {tensor.name: prod(tensor.dims) for tensor in model.graph.initializer}
    used = {name for node in model.graph.node if node.op_type in COMPUTES for name in node.input[1:]}
    return {
        "parameters": sum(size for name, size in sizes.items() if name in used),
        "multiply_adds": sum(node.multiply_adds for node in compute_nodes(model).values()),
    }
