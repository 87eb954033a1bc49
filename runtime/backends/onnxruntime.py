"""ONNX Runtime on the CPU: an engine independent of OpenVINO, and the exact outputs of a graph.

ONNX Runtime fuses Q and DQ into integer kernels, which saturate on a CPU without dot products. With its graph
optimisations off it computes every node by itself, in floating point, and gives the same outputs on every CPU.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qanet.bundle import Bundle
from qanet.errors import QanetError
from qanet.files import sha256_bytes
from qanet.runtime.backends.base import Origin, Outputs, Reopened
from qanet.scratch import scratch_folder

if TYPE_CHECKING:
    import onnxruntime

_PROVIDER = "CPUExecutionProvider"


class OnnxRuntimeEngine(Reopened):
    """A session on the CPU provider, which runs several calls at once."""

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
    onnxruntime, options = _runtime_and_options()
    if threads:
        options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(graph, options, providers=[_PROVIDER])
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        raise QanetError("ONNX Runtime refuses the graph", got=str(error).splitlines()[0]) from error
    names = tuple(output.name for output in session.get_outputs())
    return OnnxRuntimeEngine(session, precision, names if outputs is None else outputs)


def engine_from_bundle(
    bundle: Bundle, precision: str, outputs: tuple[str, ...], threads: int | None = None, graph: str | None = None
) -> OnnxRuntimeEngine:
    """Load a graph of the bundle; the CPU provider computes 16-bit graphs in FP32. QanetError as above."""
    data = bundle.graph(graph or precision)
    engine = engine_from_graph(data, precision, outputs, threads)
    import onnxruntime

    engine.origin = Origin(graph or precision, sha256_bytes(data), onnxruntime.__version__, _PROVIDER)
    return engine


def exact_outputs(
    graph: bytes, crops: NDArray[np.uint8], box_scores: NDArray[np.float32], outputs: tuple[str, ...] | None = None
) -> dict[str, NDArray[Any]]:
    """Outputs of a graph by name, without fused nodes: the reference that every engine is compared with.

    Args:
        graph: ONNX file contents.
        crops: (N, H, W, 3) uint8 BGR.
        box_scores: (N,) float32; unused where the graph has no such input.
        outputs: names of the wanted ones; None for all.
    Raises:
        QanetError: ONNX Runtime is not installed, or cannot run the graph.
    """
    onnxruntime, options = _runtime_and_options()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    with scratch_folder() as folder:  # a file, so that external data is looked up in this empty folder only
        path = folder / "reference.onnx"
        path.write_bytes(graph)
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=[_PROVIDER])
        except Exception as error:  # as above
            raise QanetError("ONNX Runtime cannot run the graph", got=str(error)[-300:]) from error
    feed = {"crops": crops, "box_scores": box_scores}
    kept = {value.name: feed[value.name] for value in session.get_inputs()}
    names = outputs or tuple(value.name for value in session.get_outputs())
    return dict(zip(names, session.run(list(names), kept)))


def _runtime_and_options() -> Any:
    """The module onnxruntime and session options that log errors only; QanetError where it is not installed."""
    try:
        import onnxruntime
    except ImportError as error:
        raise QanetError("ONNX Runtime is not installed", next_command="pip install onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime, options
