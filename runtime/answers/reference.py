"""What an ONNX graph answers, computed as it stands: the oracle that is the same on every CPU.

ONNX Runtime fuses Q and DQ into integer kernels, which saturate on a CPU without dot products. With its graph
optimisations off it computes every node by itself, in floating point: an INT8 graph means what is written in it.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.errors import QanetError


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
