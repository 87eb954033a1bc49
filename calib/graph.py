"""Reading an FP32 ONNX graph: load it, hash it, and see who makes and who reads each tensor."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.errors import QanetError


def load_model(path: str | Path) -> Any:
    """Read and check an ONNX file.

    Returns:
        onnx.ModelProto with inferred shapes in value_info.
    Raises:
        QanetError: no such file, not an ONNX file, or a graph the ONNX checker refuses.
    """
    import onnx

    path = Path(path)
    if not path.is_file():
        raise QanetError(f"no ONNX file at {path}", expected="a file", next_command="qanet export CHECKPOINT")
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model, full_check=True)
        return onnx.shape_inference.infer_shapes(model, strict_mode=True)
    except Exception as error:  # protobuf, the checker and shape inference each have their own classes
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise QanetError(
            f"broken ONNX file {path}",
            expected="a valid ONNX graph",
            got=reason,
            next_command="qanet export CHECKPOINT",
        ) from error


def file_sha256(path: str | Path) -> str:
    """Hex sha256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(file)


def crops_sha256(batches: Iterable[NDArray[np.uint8]]) -> str:
    """Hex sha256 over the pixels of the crops in order, the same however they are batched."""
    digest = hashlib.sha256()
    for batch in batches:
        digest.update(np.ascontiguousarray(batch).data)
    return digest.hexdigest()


def _digest(file: Any) -> str:
    """hashlib.file_digest for Python 3.10."""
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


@dataclass(frozen=True)
class GraphView:
    """Look-ups over a graph: initialisers by name, the node that makes a tensor, the nodes that read it.

    Nodes are known by their index in `graph.node`, which every graph has; names may be empty or shared.
    """

    graph: Any
    initialisers: dict[str, Any]
    producer: dict[str, int]
    consumers: dict[str, list[tuple[int, int]]]  # tensor -> (node index, input index)
    shapes: dict[str, tuple[int | None, ...]]

    @classmethod
    def of(cls, graph: Any) -> "GraphView":
        """Index an onnx.GraphProto; shapes come from its value_info, None for what is dynamic."""
        producer: dict[str, int] = {}
        consumers: dict[str, list[tuple[int, int]]] = {}
        for index, node in enumerate(graph.node):
            for name in node.output:
                producer[name] = index
            for position, name in enumerate(node.input):
                if name:
                    consumers.setdefault(name, []).append((index, position))
        shapes = {}
        for value in (*graph.value_info, *graph.input, *graph.output):
            if value.type.tensor_type.HasField("shape"):
                dims = value.type.tensor_type.shape.dim
                shapes[value.name] = tuple(d.dim_value if d.HasField("dim_value") else None for d in dims)
        return cls(graph, {t.name: t for t in graph.initializer}, producer, consumers, shapes)

    def upstream(self, tensors: Iterable[str]) -> set[int]:
        """Indices of all nodes that some of these tensors depend on."""
        seen: set[int] = set()
        stack = list(tensors)
        while stack:
            index = self.producer.get(stack.pop())
            if index is not None and index not in seen:
                seen.add(index)
                stack.extend(self.graph.node[index].input)
        return seen

    def tensors(self) -> set[str]:
        """Names of every activation: the graph's inputs and what its nodes make."""
        return {value.name for value in self.graph.input} - set(self.initialisers) | set(self.producer)
