"""ONNX Runtime on the CPU: another opinion, and an engine where OpenVINO is not to be had."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qanet.bundle import Bundle
from qanet.errors import QanetError
from qanet.files import sha256_bytes
from qanet.runtime.backends.base import Origin, Outputs

if TYPE_CHECKING:
    import onnxruntime


class OnnxRuntimeEngine:
    """A session on the CPU provider."""

    runtime = "onnxruntime"

    def __init__(self, session: "onnxruntime.InferenceSession", precision: str, outputs: tuple[str, ...]):
        self.session, self.precision, self.outputs = session, precision, outputs
        self.origin: Origin | None = None
        self._inputs = [value.name for value in session.get_inputs()]

    def run(self, crops: NDArray[np.uint8], box_scores: NDArray[np.float32]) -> Outputs:
        """See `Engine.run`."""
        feed = {"crops": crops, "box_scores": np.asarray(box_scores, np.float32)}
        feed = {name: feed[name] for name in self._inputs}  # a detector has no box scores
        return dict(zip(self.outputs, self.session.run(list(self.outputs), feed)))


def engine_from_graph(
    graph: bytes, precision: str, outputs: tuple[str, ...] | None = None, threads: int | None = None
) -> OnnxRuntimeEngine:
    """Load an ONNX graph; QanetError where ONNX Runtime is missing or refuses the graph."""
    try:
        import onnxruntime
    except ImportError as error:
        raise QanetError("ONNX Runtime is not installed", next_command="pip install onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads:
        options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions share no base of their own
        raise QanetError("ONNX Runtime refuses the graph", got=str(error).splitlines()[0]) from error
    names = tuple(output.name for output in session.get_outputs())
    return OnnxRuntimeEngine(session, precision, names if outputs is None else outputs)


def engine_from_bundle(
    bundle: Bundle, precision: str, outputs: tuple[str, ...], threads: int | None = None, graph: str | None = None
) -> OnnxRuntimeEngine:
    """A graph of the bundle on the CPU provider, which computes 16-bit graphs in FP32; QanetError as above."""
    data = bundle.graph(graph or precision)
    engine = engine_from_graph(data, precision, outputs, threads)
    import onnxruntime

    engine.origin = Origin(graph or precision, sha256_bytes(data), onnxruntime.__version__, "CPUExecutionProvider")
    return engine


def exact_outputs(
    graph: bytes, crops: NDArray[np.uint8], box_scores: NDArray[np.float32], outputs: tuple[str, ...] | None = None
) -> dict[str, NDArray[Any]]:
    """Outputs of a graph by name, every node computed by itself.

    Args:
        graph: ONNX file contents.
        crops: (N, H, W, 3) uint8 BGR.
        box_scores: (N,) float32; left out where the graph does not take them.
        outputs: those wanted; None for all.
    Raises:
        QanetError: ONNX Runtime is not installed, or cannot run the graph.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise QanetError(
            "ONNX Runtime is not installed, so there is nothing to compare with", next_command="pip install onnxruntime"
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    with tempfile.TemporaryDirectory() as folder:  # a file, so that no data beside the working folder is opened
        path = Path(folder) / "reference.onnx"
        path.write_bytes(graph)
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has an exception of its own for each of its statuses
            raise QanetError("ONNX Runtime cannot run the graph", got=str(error)[-300:]) from error
    feed = {"crops": crops, "box_scores": box_scores}
    kept = {value.name: feed[value.name] for value in session.get_inputs()}
    names = outputs or tuple(value.name for value in session.get_outputs())
    return dict(zip(names, session.run(list(names), kept)))
