"""YuNet, the face detector of OpenCV's model zoo (Wu, Peng and Yu 2023; face_detection_yunet_2023mar.onnx).

Input (1, 3, H, W) float32 BGR 0..255; for strides 8, 16 and 32, outputs cls_S and obj_S (1, A, 1), bbox_S (1, A, 4) and
kps_S (1, A, 10), A = H*W/S/S: the class's and the object's score, centre and size of the face, five points of it.
"""

import numpy as np
from numpy.typing import NDArray

from qanet.runtime.detectors.base import Candidates
from qanet.runtime.detectors.graph import Graph, letterbox

STRIDES = (8, 16, 32)


class Yunet:
    """Decodes what a YuNet graph says; the points are left alone."""

    known_as = "YuNet (faces): cls_S, obj_S (1, A, 1), bbox_S (1, A, 4) for the strides 8, 16, 32"
    needs_nms = True

    def __init__(self, input_hw: tuple[int, int], places: dict[str, int]):
        self._input_hw, self._places = input_hw, places

    @classmethod
    def of(cls, graph: Graph) -> "Yunet | None":
        """See `Yolox.of`."""
        if graph.image_hw is None or len(graph.inputs) != 1:
            return None
        height, width = graph.image_hw
        shapes = {port.name: port.shape for port in graph.outputs}
        for stride in STRIDES:
            count = (height // stride) * (width // stride)
            for name, channels in (("cls", 1), ("obj", 1), ("bbox", 4)):
                if shapes.get(f"{name}_{stride}") != (1, count, channels):
                    return None
        return cls(graph.image_hw, {port.name: k for k, port in enumerate(graph.outputs)})

    def feed(self, image: NDArray[np.uint8]) -> list[NDArray]:
        """See `Yolox.feed`."""
        blob, self._lies = letterbox(image, self._input_hw, centred=False, rgb01=False)
        return [blob]

    def decode(self, outputs: list[NDArray], threshold: float) -> Candidates:
        """See `Yolox.decode`."""
        boxes, scores = [], []
        for stride in STRIDES:
            found, score = self._level(outputs, stride, threshold)
            boxes.append(found)
            scores.append(score)
        return self._lies.to_image(np.concatenate(boxes)), np.concatenate(scores)

    def _level(self, outputs: list[NDArray], stride: int, threshold: float) -> Candidates:
        """Faces of one stride in network pixels."""
        kinds = (outputs[self._places[f"{name}_{stride}"]][0] for name in ("cls", "obj", "bbox"))
        of_class, of_object, where = kinds  # (A, 1), (A, 1), (A, 4)
        scores = np.sqrt(np.clip(of_class[:, 0], 0, 1) * np.clip(of_object[:, 0], 0, 1))
        chosen = np.flatnonzero(scores >= threshold)
        row, column = np.divmod(chosen, self._input_hw[1] // stride)
        centre = (where[chosen, :2] + np.stack([column, row], 1)) * stride
        half = np.exp(where[chosen, 2:4]) * stride / 2
        return np.concatenate([centre - half, centre + half], 1).astype(np.float32), scores[chosen]
