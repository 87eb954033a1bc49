"""Does an engine compute what its graph says? The same crops through ONNX Runtime and the engine, output by output.

The reference is ONNX Runtime on the very graph the engine was built from, so what is compared is the builder's work and
not the precision's. Its CPU provider computes an FP16 graph in FP32, and an INT8 graph by the steps that stand in it;
a BF16 graph it cannot run, so that is compared with the FP32 graph. An engine that departs is searched for the first
layer that does, by building it again with the end of every layer as one more output.
"""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.errors import QanetError
from qanet.export.engines.multiply_adds import COMPUTES

Arrays = Mapping[str, NDArray[Any]]
Run = Callable[[NDArray[np.uint8], NDArray[np.float32], tuple[str, ...]], Arrays]

# Greatest difference by the precision that was delivered: of tensors the RMS of the error over the RMS of the value;
# of scores, which lie between 0 and 1, absolute (of parts the mean); of labels the share of pixels. Logits of the
# bundled network and of R50c in OpenVINO, for comparison: FP32 5e-7, FP16 8e-4, BF16 2e-2, INT8 3e-2.
TENSOR_TOLERANCE = {"fp32": 2e-3, "fp16": 1e-2, "bf16": 5e-2, "int8": 6e-2, "fp8": 1e-1}
SCORE_TOLERANCE = {"fp32": 2e-3, "fp16": 1e-2, "bf16": 5e-2, "int8": 5e-2, "fp8": 1e-1}
LABEL_TOLERANCE = {"fp32": 1e-3, "fp16": 1e-2, "bf16": 5e-2, "int8": 5e-2, "fp8": 1e-1}
_FOLLOWS = {"Relu", "Clip", "HardSwish", "LeakyRelu", "Add", "Cast", "BatchNormalization"}  # fused into a layer
_FLOATS = {1, 10, 16}  # onnx.TensorProto.FLOAT, FLOAT16, BFLOAT16


@dataclass(frozen=True)
class Difference:
    """How far an output or a layer is from the reference, and how far it may be."""

    name: str
    value: float
    limit: float

    @property
    def departs(self) -> bool:
        """Also for NaN."""
        return not self.value <= self.limit


def compare(reference: Arrays, got: Arrays, precision: str) -> list[Difference]:
    """Each output of the engine against the reference, in the engine's order.

    Args:
        precision: that was delivered, a key of TENSOR_TOLERANCE.
    Raises:
        QanetError: an output of another shape.
    """
    differences = []
    for name, values in got.items():
        expected, found = np.asarray(reference[name]), np.asarray(values)
        if expected.shape != found.shape:
            raise QanetError(f"the engine's {name} has another shape", expected=expected.shape, got=found.shape)
        if name == "labels":
            value, limit = float((expected != found).mean()), LABEL_TOLERANCE[precision]
        elif expected.ndim <= 2:  # (N,) of people; (N, C-1) of parts, which come and go with a few pixels: their mean
            error = np.abs(expected.astype(np.float64) - found)
            value, limit = float(error.max() if error.ndim == 1 else error.mean()), SCORE_TOLERANCE[precision]
        else:
            value, limit = relative_rms(expected, found), TENSOR_TOLERANCE[precision]
        differences.append(Difference(name, value, limit))
    return differences


def relative_rms(expected: NDArray[Any], got: NDArray[Any]) -> float:
    """RMS of the error over the RMS of the value; 0 for two tensors of zeros."""
    exact = expected.astype(np.float64)
    error, size = np.sqrt(np.square(got - exact).mean()), np.sqrt(np.square(exact).mean())
    return float(error / size) if size else float(error > 0)


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
        engine: runs crops (N, H, W, 3) and box scores (N,) and returns the outputs it is asked for.
        outputs: of the engine.
        precision: that was delivered.
        crops: (N, H, W, 3) uint8.
        rebuild: builds an engine of a graph with more outputs, those named, for the search.
    Returns:
        The differences, all within their limits.
    Raises:
        QanetError: one is not; names it and the first layer that departs.
    """
    boxes = np.linspace(1, 0.5, len(crops), dtype=np.float32)
    differences = compare(_reference(graph, crops, boxes, outputs), engine(crops, boxes, outputs), precision)
    wrong = [d for d in differences if d.departs]
    if not wrong:
        return differences
    first = first_departure(graph, crops[:1], boxes[:1], precision, rebuild)
    where = (
        f"the first layer that departs: {first.name} ({first.value:.2g}, limit {first.limit:g})" if first else
        "no layer departs once the end of each is an output, so it is the fusion of layers that does"
    )  # fmt: skip
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
    reference, got = _reference(marked, crops, boxes, tuple(ends)), run(crops, boxes, tuple(ends))
    for tensor, layer in ends.items():
        difference = Difference(
            layer, relative_rms(np.asarray(reference[tensor]), np.asarray(got[tensor])), TENSOR_TOLERANCE[precision]
        )
        if difference.departs:
            return difference
    return None


def mark_layers(graph: bytes) -> tuple[bytes, dict[str, str]]:
    """The graph with the end of every layer as an output, and {that tensor: name of its node}, in order.

    A layer is a convolution or matrix product with the activation and the sum that runtimes fuse into it: marked
    inside, the fusion itself would be gone. Behind the last of them every node is one.
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


def _reference(
    graph: bytes, crops: NDArray[np.uint8], boxes: NDArray[np.float32], outputs: tuple[str, ...]
) -> dict[str, NDArray[Any]]:
    try:
        import onnxruntime
    except ImportError as error:
        raise QanetError(
            "ONNX Runtime is not installed, so there is nothing to verify with", next_command="pip install onnxruntime"
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:  # a file, so that no data beside the working folder is opened
        path = Path(folder) / "reference.onnx"
        path.write_bytes(graph)
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has an exception of its own for each of its statuses
            raise QanetError("ONNX Runtime cannot run the graph", got=str(error)[-300:]) from error
    feed = {"crops": crops, "box_scores": boxes}
    kept = {value.name: feed[value.name] for value in session.get_inputs()}
    return dict(zip(outputs, session.run(list(outputs), kept)))


def drawn_crops(count: int, input_hw: tuple[int, int]) -> NDArray[np.uint8]:
    """(count, H, W, 3) uint8 of soft blobs, the same each time: noise would make every label a near-tie."""
    import cv2

    rng = np.random.default_rng(0)
    height, width = input_hw
    coarse = rng.integers(0, 256, (count, max(height // 32, 2), max(width // 32, 2), 3), np.uint8)
    return np.stack([cv2.resize(c, (width, height), interpolation=cv2.INTER_CUBIC) for c in coarse])
