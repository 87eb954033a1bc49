"""The ONNX graph an engine is built from: read, cut down to the outputs asked for, every node named."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qanet.errors import QanetError
from qanet.export.engines.multiply_adds import COMPUTES

CROPS, BOX_SCORES = "crops", "box_scores"


def load_graph(onnx_path: str | Path, outputs: Sequence[str] | None = None) -> Any:
    """Read a parsing graph.

    A tail made of kernels needs the logits and no label map, so the graph is cut before the builder sees it: no
    runtime then has to be trusted to drop dead layers, and an input nobody reads disappears in all of them alike.

    Args:
        onnx_path: graph with the inputs `crops` uint8 (N, H, W, 3) and, if its outputs need it, `box_scores`
            float32 (N,); weights inside the file or beside it.
        outputs: names to keep, in this order; None keeps all.

    Returns:
        An onnx.ModelProto with its weights in memory and a name on every node (the census goes by node names).

    Raises:
        QanetError: no such file, not ONNX, an input outside the contract, or an output the graph does not have.
    """
    import onnx

    path = Path(onnx_path)
    if not path.is_file():
        raise QanetError("no such ONNX file", got=path)
    try:
        model = onnx.load(path)
    except Exception as error:  # protobuf's DecodeError, or a missing file of external weights
        raise QanetError(f"cannot read {path.name} as ONNX", got=str(error) or type(error).__name__) from error
    if not model.graph.output:
        raise QanetError(f"{path.name} is not an ONNX graph", expected="a graph with outputs", got="none")
    if outputs is not None:
        model = _cut(model, tuple(outputs), path.name)
    _check_inputs(model, path.name)
    _name_nodes(model)
    return model


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
                next_command="qanet export",
            )
        if value.name == CROPS and not all(d.dim_value > 0 for d in tensor.shape.dim[1:]):
            raise QanetError(f"{name}: only the batch may be dynamic", expected="crops (N, H, W, 3) with H and W set")
    if CROPS not in {value.name for value in model.graph.input}:
        raise QanetError(f"{name} does not have the input crops", got=[value.name for value in model.graph.input])


def _name_nodes(model: Any) -> None:
    """Give every node a name of its own; convolutions and products keep theirs, other nodes make way."""
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
