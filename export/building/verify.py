"""Compares an engine with its graph: the same crops through both, output by output.

The reference is the very graph the engine was built from, every node computed by itself in floating point, so that the
comparison judges the builder and not the precision. ONNX Runtime cannot compute a BF16 graph, so the FP32 graph is its
reference. Every build asks its engine for known answers; this comparison is closer, and takes pictures of the user's.
Where an engine departs, the first layer that departs is found by building it again with the end of every layer as one
more output.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.errors import QanetError
from qanet.export.graphs.source import COMPUTES
from qanet.runtime.answers.verdicts import TOLERANCES, Difference, compare, relative_rms
from qanet.runtime.backends.onnxruntime import exact_outputs

Arrays = Mapping[str, NDArray[Any]]
Run = Callable[[NDArray[np.uint8], NDArray[np.float32], tuple[str, ...]], Arrays]

_FOLLOWS = {"Relu", "Clip", "HardSwish", "LeakyRelu", "Add", "Cast", "BatchNormalization"}  # fused into a layer
_FLOATS = {1, 10, 16}  # onnx.TensorProto.FLOAT, FLOAT16, BFLOAT16


def verify(
    graph: bytes,
    engine: Run,
    outputs: tuple[str, ...],
    precision: str,
    crops: NDArray[np.uint8],
    rebuild: Callable[[bytes, tuple[str, ...]], Run],
) -> list[Difference]:
    """Compare an engine with ONNX Runtime on a graph.

    Args:
        graph: ONNX file contents of the reference.
        engine: runs crops (N, H, W, 3) and box scores (N,) and returns the named outputs.
        outputs: of the engine.
        precision: that was delivered.
        crops: (N, H, W, 3) uint8.
        rebuild: builds an engine of a graph with more outputs, the named ones, for the search.
    Returns:
        The differences, all within their limits.
    Raises:
        QanetError: an output departs; the error names it and the first layer that departs.
    """
    boxes = np.linspace(1, 0.5, len(crops), dtype=np.float32)
    differences = compare(
        exact_outputs(graph, crops, boxes, outputs), engine(crops, boxes, outputs), TOLERANCES[precision]
    )
    wrong = [d for d in differences if d.departs]
    if not wrong:
        return differences
    first = first_departure(graph, crops[:1], boxes[:1], precision, rebuild)
    where = (
        f"the first layer that departs: {first.name} ({first.value:.2g}, limit {first.limit:g})"
        if first
        else "no layer departs once the end of each is an output, so it is the fusion of layers that does"
    )
    raise QanetError(
        f"the engine departs from ONNX Runtime at {', '.join(d.name for d in wrong)}; {where}",
        expected=", ".join(f"{d.name} within {d.limit:g}" for d in wrong),
        got=", ".join(f"{d.value:.3g}" for d in wrong),
    )


def first_departure(
    graph: bytes,
    crops: NDArray[np.uint8],
    boxes: NDArray[np.float32],
    precision: str,
    rebuild: Callable[[bytes, tuple[str, ...]], Run],
) -> Difference | None:
    """The first layer, in the graph's order, whose end departs; named after its convolution or matrix product."""
    marked, ends = mark_layers(graph)
    run = rebuild(marked, tuple(ends))
    reference, got = exact_outputs(marked, crops, boxes, tuple(ends)), run(crops, boxes, tuple(ends))
    for tensor, layer in ends.items():
        difference = Difference(
            layer, relative_rms(np.asarray(reference[tensor]), np.asarray(got[tensor])), TOLERANCES[precision]["map"]
        )
        if difference.departs:
            return difference
    return None


def mark_layers(graph: bytes) -> tuple[bytes, dict[str, str]]:
    """The graph with the end of every layer as an output, and {that tensor: name of its node}, in order.

    A layer is a convolution or matrix product with the activation and the sum that runtimes fuse into it: an output
    inside would prevent the fusion. Behind the last of them every node is a layer.
    """
    import onnx

    model = onnx.load_model_from_string(graph)
    typed = onnx.shape_inference.infer_shapes(model).graph
    values = {value.name: value for value in (*typed.value_info, *typed.output)}
    readers: dict[str, list[Any]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    outputs = {value.name for value in model.graph.output}
    ends: dict[str, str] = {}
    nodes = list(model.graph.node)
    last = max((index for index, node in enumerate(nodes) if node.op_type in COMPUTES), default=0)
    for index, node in enumerate(nodes):
        tensor = node.output[0]
        if index > last and tensor in values and values[tensor].type.tensor_type.elem_type in _FLOATS:
            ends.setdefault(tensor, node.name or tensor)
        elif node.op_type in COMPUTES:
            while len(readers.get(tensor, ())) == 1 and readers[tensor][0].op_type in _FOLLOWS:
                tensor = readers[tensor][0].output[0]
            if tensor in values:
                ends.setdefault(tensor, node.name or tensor)
    model.graph.output.extend(values[tensor] for tensor in ends if tensor not in outputs)
    return model.SerializeToString(deterministic=True), ends


def drawn_crops(count: int, input_hw: tuple[int, int]) -> NDArray[np.uint8]:
    """(count, H, W, 3) uint8 of soft blobs, the same each time: noise would make every label a near-tie."""
    import cv2

    rng = np.random.default_rng(0)
    height, width = input_hw
    coarse = rng.integers(0, 256, (count, max(height // 32, 2), max(width // 32, 2), 3), np.uint8)
    return np.stack([cv2.resize(c, (width, height), interpolation=cv2.INTER_CUBIC) for c in coarse])
