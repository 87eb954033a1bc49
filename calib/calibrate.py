"""Crops through the FP32 graph, one at a time, into a histogram for every activation that will be quantised.

ONNX Runtime runs the part of the graph that those activations need. Crops are run singly whatever the batches
were: the ranges then depend on the crops alone, and memory on one crop's activations (about 100 MB at 384x288).
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.calib.graph import GraphView, file_sha256, load_model
from qanet.calib.histogram import Histogram
from qanet.calib.placement import DEFAULT_KEEP, place
from qanet.calib.ranges import DEFAULT_PERCENTILE, check_method, find_range
from qanet.calib.scales import Range, Scales
from qanet.errors import QanetError

_AGAIN = "qanet calibrate NAME.qanet --data DIR"


def calibrate(
    model_path: str | Path, batches: Iterable[NDArray[np.uint8]], method: str = "entropy", *,
    keep: tuple[str, ...] = DEFAULT_KEEP, percentile: float = DEFAULT_PERCENTILE, data_sha256: str = "",
    threads: int = 0, progress: Callable[[int], None] | None = None,
) -> Scales:  # fmt: skip
    """Find the range of every activation that `place` quantises.

    Args:
        model_path: FP32 ONNX with one uint8 input (N, H, W, 3) in front of its convolutions.
        batches: uint8 arrays (B, H, W, 3), read once; B may vary and does not matter.
        method: one of qanet.calib.ranges.METHODS.
        keep: patterns of node names to leave in float.
        percentile: per cent of values kept by method "percentile".
        data_sha256: recorded as it is.
        threads: of ONNX Runtime, 0 for all cores.
        progress: called with the number of crops done, after each.
    Raises:
        QanetError: unknown method, broken ONNX, no crops, crops of a wrong shape or dtype, crops that are all black,
            an activation that is NaN, infinite or zero throughout.
    """
    check_method(method, percentile)
    model = load_model(model_path)
    names = place(model, keep).observed()
    run, crop_shape = _session(model, names, threads)
    histograms = {name: Histogram() for name in names}
    crops, bright = 0, False
    for crop in _each_crop(batches, crop_shape):
        bright = bright or bool(crop.any())
        for name, values in zip(names, run(crop)):
            _add(histograms[name], name, values)
        crops += 1
        if progress:
            progress(crops)
    if not crops:
        raise QanetError("no crops to calibrate on", expected="a few hundred", got=0, next_command=_AGAIN)
    if not bright:
        raise QanetError(
            f"all {crops} crops are black", expected="photographs of people", got="every pixel 0",
            next_command="check the boxes: a box outside its image gives a black crop",
        )  # fmt: skip
    by = f"percentile {percentile:g}" if method == "percentile" else method
    ranges = {name: _range(histograms[name], name, method, percentile, by) for name in names}
    return Scales(by, crops, file_sha256(model_path), data_sha256, tuple(keep), ranges)


def _add(histogram: Histogram, name: str, values: NDArray[np.float32]) -> None:
    try:
        histogram.add(values)
    except ValueError as error:
        raise QanetError(f"calibration: {error} in tensor {name!r}", next_command="qanet export CHECKPOINT") from error


def _range(histogram: Histogram, name: str, method: str, percentile: float, by: str) -> Range:
    amax = find_range(histogram, method, percentile=percentile)
    if amax <= 0:
        raise QanetError(
            f"calibration: tensor {name!r} is zero for every crop", expected="a range above zero", got=amax,
            next_command="use more varied crops, or keep the layers that read it in float",
        )  # fmt: skip
    return Range(amax, by, histogram.largest)


def _each_crop(batches: Iterable[NDArray[np.uint8]], crop_shape: tuple[int | None, ...]) -> Iterable[NDArray[np.uint8]]:
    """The crops (1, H, W, 3) uint8 of all batches, validated."""
    for batch in batches:
        batch = np.asarray(batch)
        fits = batch.ndim == 4 and all(want in (None, got) for want, got in zip(crop_shape, batch.shape[1:]))
        if not fits or batch.dtype != np.uint8:
            expected = ", ".join("?" if size is None else str(size) for size in crop_shape)
            raise QanetError(
                "the crops do not fit the model", expected=f"uint8 (B, {expected})",
                got=f"{batch.dtype} {batch.shape}", next_command="qanet.geometry.crop_people at the model's input size",
            )  # fmt: skip
        for index in range(len(batch)):
            yield np.ascontiguousarray(batch[index : index + 1])


def _session(
    model: Any, names: list[str], threads: int
) -> tuple[Callable[[NDArray[np.uint8]], list[NDArray[np.float32]]], tuple[int | None, ...]]:
    """A function crop -> activations, and the crop's (H, W, 3) with None for what is dynamic."""
    import onnx
    import onnxruntime as ort

    view = GraphView.of(model.graph)
    needed = view.upstream(names)
    nodes = [node for index, node in enumerate(model.graph.node) if index in needed]
    read = {name for node in nodes for name in node.input} | set(names)
    inputs = [v for v in model.graph.input if v.name in read and v.name not in view.initialisers]
    shape = view.shapes.get(inputs[0].name, ()) if len(inputs) == 1 else ()
    if len(inputs) != 1 or len(shape) != 4 or inputs[0].type.tensor_type.elem_type != onnx.TensorProto.UINT8:
        raise QanetError(
            "the graph cannot be calibrated", expected="one uint8 input (N, H, W, 3) before the convolutions",
            got=[v.name for v in inputs], next_command="qanet export CHECKPOINT",
        )  # fmt: skip
    outputs = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names]
    initialisers = [tensor for tensor in model.graph.initializer if tensor.name in read]
    graph = onnx.helper.make_graph(nodes, "calibration", inputs, outputs, initialisers)
    part = onnx.helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(part.SerializeToString(), options, ["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions have no common class of their own
        raise QanetError("ONNX Runtime refuses the graph", got=str(error).splitlines()[0]) from error
    feed = inputs[0].name
    return (lambda crop: session.run(names, {feed: crop})), shape[1:]
