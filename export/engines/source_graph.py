"""The ONNX graph an engine is built from: read, cut down to the outputs asked for, every node named."""

from collections.abc import Sequence
from math import prod
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
        QanetError: no such file, as `parse_graph`, an input outside the contract, or an output the graph does not have.
    """
    path = Path(onnx_path)
    if not path.is_file():
        raise QanetError("no such ONNX file", got=path)
    model = parse_graph(path.read_bytes(), path.name, path.parent)
    if outputs is not None:
        model = _cut(model, tuple(outputs), path.name)
    _check_inputs(model, path.name)
    _name_nodes(model)
    return model


def parse_graph(data: bytes, name: str, folder: Path | None = None) -> Any:
    """Read an ONNX graph that this machine's onnx knows all about.

    Args:
        data: file contents.
        name: to say in errors.
        folder: where weights outside the file may lie; None refuses any.

    Returns:
        An onnx.ModelProto with its weights in memory.

    Raises:
        QanetError: not ONNX or cut off, of a newer opset, with an operator that is none of ONNX's, or with weights that
            are missing, outside `folder`, or shorter than they should be.
    """
    import onnx

    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf's DecodeError
        raise QanetError(
            f"cannot read {name} as ONNX",
            got=f"{str(error) or type(error).__name__} in {len(data)} bytes",
            next_command="export it again: the file is cut off, or something else",
        ) from error
    if not model.graph.output:
        raise QanetError(f"{name} is not an ONNX graph", expected="a graph with outputs", got="none")
    _check_operators(model, name)
    _load_weights(model, name, folder)
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


def _load_weights(model: Any, name: str, folder: Path | None) -> None:
    """Weights beside the file, into memory; nothing outside its folder is opened, by a path or through a link."""
    from onnx import external_data_helper as external

    for tensor in model.graph.initializer:
        if not external.uses_external_data(tensor):
            continue
        location = {entry.key: entry.value for entry in tensor.external_data}.get("location", "")
        place = folder and (folder / location).resolve()
        if folder is None or place is None or folder.resolve() not in place.parents:
            where = "its folder" if folder else "the file itself"
            raise QanetError(f"{name} has weights outside {where}", expected=f"{tensor.name} inside", got=location)
        if not place.is_file():
            raise QanetError(f"{name} lacks the file of its weights", expected=location, got="missing")
        try:
            external.load_external_data_for_tensor(tensor, str(folder))
            tensor.ClearField("data_location")
            del tensor.external_data[:]
        except Exception as error:  # onnx's own errors, of several kinds
            raise QanetError(
                f"cannot read the weights of {name}", expected=f"{tensor.name} whole", got=error
            ) from error
        _check_size(tensor, name, location)


def _check_size(tensor: Any, name: str, location: str) -> None:
    import onnx

    expected = prod(tensor.dims) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    if len(tensor.raw_data) != expected:
        raise QanetError(
            f"the weights of {name} are cut off",
            expected=f"{expected} bytes of {tensor.name} in {location}",
            got=len(tensor.raw_data),
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
