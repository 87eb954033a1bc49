"""YOLOX from its ONNX export, recognised by its outputs (arXiv 2107.08430; demo/ONNXRuntime of its authors).

Input (1, 3, S, S) float32 BGR 0..255, letterboxed at the top left with 114; output (1, A, 5 + K) raw: centre,
size, objectness, K class scores, on grids of strides 8, 16 and 32. Class 0 of COCO is person.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qanet.errors import QanetError
from qanet.runtime.detectors.base import NOBODY, Detections, clip_boxes, suppress

if TYPE_CHECKING:
    import openvino

_STRIDES = (8, 16, 32)
_PAD = 114
_PERSON = 0


class YoloxDetector:
    """People from a YOLOX model, through OpenVINO on the CPU."""

    def __init__(
        self, path: Path, score_threshold: float = 0.35, iou_threshold: float = 0.5, threads: int | None = None
    ):
        import openvino
        from openvino.frontend import FrontEndManager

        if not path.is_file():
            raise QanetError(
                f"no detector at {path}", expected="an ONNX detector, e.g. yolox_nano.onnx",
                next_command="leave --detector out to use OpenCV's people detector",
            )  # fmt: skip
        core = openvino.Core()
        frontend = FrontEndManager().load_by_framework("onnx")  # read_model would try other formats too, aloud
        try:
            model = frontend.convert(frontend.load(str(path)))
        except Exception as error:  # its exceptions share no base of their own
            got = str(error).strip().splitlines()[-1]
            raise QanetError(f"{path} is not a readable ONNX model", got=got) from error
        self._input_hw = _recognise(model, path)
        config = {"PERFORMANCE_HINT": "LATENCY", **({"INFERENCE_NUM_THREADS": threads} if threads else {})}
        self._request = core.compile_model(model, "CPU", config).create_infer_request()
        self.score_threshold, self.iou_threshold = score_threshold, iou_threshold
        self.name = path.name
        self._grid, self._stride = _anchors(self._input_hw)

    def detect(self, image: NDArray[np.uint8], frame: int | str = 0) -> Detections:
        """See `Detector.detect`."""
        blob, ratio = _letterbox(image, self._input_hw)
        raw = self._request.infer([blob])[0][0]  # (A, 5 + K)
        scores = raw[:, 4] * raw[:, 5 + _PERSON]
        chosen = np.flatnonzero(scores >= self.score_threshold)
        if len(chosen) == 0:
            return NOBODY
        centre = (raw[chosen, :2] + self._grid[chosen]) * self._stride[chosen]
        half = np.exp(raw[chosen, 2:4]) * self._stride[chosen] / 2
        boxes = np.concatenate([centre - half, centre + half], 1).astype(np.float32) / np.float32(ratio)
        boxes = clip_boxes(boxes, (image.shape[0], image.shape[1]))
        kept = suppress(boxes, scores[chosen], self.iou_threshold)
        kept = kept[((boxes[kept, 2:] - boxes[kept, :2]) >= 2).all(1)]
        return Detections(boxes[kept], scores[chosen][kept].astype(np.float32))


def _recognise(model: "openvino.Model", path: Path) -> tuple[int, int]:
    """The input (H, W) of a YOLOX model; QanetError that lists what was seen otherwise."""
    inputs, outputs = ([_static_shape(port) for port in ports] for ports in (model.inputs, model.outputs))
    if len(inputs) == 1 and len(outputs) == 1 and inputs[0] and outputs[0] and len(inputs[0]) == 4:
        height, width = inputs[0][2:]
        anchors = sum((height // s) * (width // s) for s in _STRIDES)
        if len(outputs[0]) == 3 and outputs[0][1] == anchors and outputs[0][2] > 5:
            return height, width
    raise QanetError(
        f"{path.name} is not a detector this version knows",
        expected="YOLOX: one input (1, 3, H, W), one output (1, H*W*21/1024, 5 + classes)",
        got=f"inputs {inputs}, outputs {outputs}", next_command="give boxes with --boxes FILE instead",
    )  # fmt: skip


def _static_shape(port: Any) -> list[int] | None:
    """The shape of a port, None where it is dynamic."""
    shape = port.get_partial_shape()
    return list(shape.to_shape()) if shape.is_static else None


def _anchors(input_hw: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cell (x, y) and stride of every anchor: (A, 2) and (A, 1) float32."""
    cells, strides = [], []
    for stride in _STRIDES:
        rows, columns = input_hw[0] // stride, input_hw[1] // stride
        ys, xs = np.mgrid[:rows, :columns]
        cells.append(np.stack([xs.ravel(), ys.ravel()], 1))
        strides.append(np.full((rows * columns, 1), stride))
    return np.concatenate(cells).astype(np.float32), np.concatenate(strides).astype(np.float32)


def _letterbox(image: NDArray[np.uint8], input_hw: tuple[int, int]) -> tuple[NDArray[np.float32], float]:
    """(1, 3, H, W) float32 and the scale from image to network pixels."""
    import cv2

    ratio = min(input_hw[0] / image.shape[0], input_hw[1] / image.shape[1])
    size = (max(1, int(image.shape[1] * ratio)), max(1, int(image.shape[0] * ratio)))
    canvas = np.full((*input_hw, 3), _PAD, np.uint8)
    canvas[: size[1], : size[0]] = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(canvas.transpose(2, 0, 1)[None], np.float32), ratio
