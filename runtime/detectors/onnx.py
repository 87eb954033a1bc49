"""A detector from an ONNX file, recognised by its inputs and outputs."""

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from qanet.errors import QanetError
from qanet.geometry import suppress
from qanet.runtime.detectors.base import NOBODY, Candidates, Detections, clip_boxes
from qanet.runtime.detectors.graph import Graph, compile_graph, read_graph
from qanet.runtime.detectors.sets import DetrSet, TorchvisionSet
from qanet.runtime.detectors.ultralytics import UltralyticsEndToEnd, UltralyticsRaw
from qanet.runtime.detectors.yolox import Yolox
from qanet.runtime.detectors.yunet import Yunet

SCORE_THRESHOLD = 0.35
_NMS_IOU = 0.5
_MIN_SIDE_PX = 2
_MAX_CANDIDATES = 1000  # before suppression, which takes their square
_FAMILIES = (Yolox, UltralyticsRaw, UltralyticsEndToEnd, DetrSet, TorchvisionSet, Yunet)  # the first that fits


class _Family(Protocol):
    """What the decoders have in common."""

    needs_nms: bool

    def feed(self, image: NDArray[np.uint8]) -> list[NDArray]: ...

    def decode(self, outputs: list[NDArray], threshold: float) -> Candidates: ...


class OnnxDetector:
    """People from a detector of a known family, through OpenVINO on the CPU. One detector a thread.

    Args:
        path: the ONNX file.
        score_threshold: people of this score or more are given; the tracker asks for less, see `BYTE_SCORE`.
        threads: CPU threads; None leaves the choice to OpenVINO.
    Raises:
        QanetError: no file, not ONNX, or of no known family: then what was seen and what is known.
    """

    def __init__(self, path: Path, score_threshold: float = SCORE_THRESHOLD, threads: int | None = None):
        model, graph = read_graph(path)
        self.family = _recognise(graph, path)
        self._request = compile_graph(model, threads)
        self.score_threshold = score_threshold
        self.name = path.name

    def detect(self, image: NDArray[np.uint8], frame: int | str = 0) -> Detections:
        """See `Detector.detect`."""
        self._request.infer(self.family.feed(image))
        outputs = [np.array(tensor.data) for tensor in self._request.output_tensors]
        boxes, scores = self.family.decode(outputs, self.score_threshold)
        boxes, scores = np.asarray(boxes, np.float32).reshape(-1, 4), np.asarray(scores, np.float32)
        finite = np.isfinite(boxes).all(1) & np.isfinite(scores)
        boxes, scores = clip_boxes(boxes[finite], (image.shape[0], image.shape[1])), scores[finite]
        large = ((boxes[:, 2:] - boxes[:, :2]) >= _MIN_SIDE_PX).all(1)
        boxes, scores = boxes[large], np.clip(scores[large], 0, 1)
        order = np.argsort(-scores, kind="stable")[:_MAX_CANDIDATES]
        if len(order) == 0:
            return NOBODY
        boxes, scores = boxes[order], scores[order]
        if self.family.needs_nms:
            kept = suppress(boxes, scores, _NMS_IOU)
            boxes, scores = boxes[kept], scores[kept]
        return Detections(boxes, scores)


def _recognise(graph: Graph, path: Path) -> _Family:
    for family in _FAMILIES:
        if (decoder := family.of(graph)) is not None:
            return decoder
    seen = "; ".join(
        f"{what} {', '.join(map(str, ports))}" for what, ports in (("inputs", graph.inputs), ("outputs", graph.outputs))
    )
    raise QanetError(
        f"{path.name} is not a detector this version knows",
        expected=" | ".join(family.known_as for family in _FAMILIES),
        got=seen,
        next_command="export it in one of these forms, or give boxes with --boxes FILE",
    )
