"""Detectors that give three outputs, boxes, labels and scores: the DETR family and torchvision.

RT-DETR and D-FINE (`tools/export_onnx.py` of their authors): inputs images (1, 3, H, W) float32 RGB 0..1, squeezed to
the network's size, and orig_target_sizes (1, 2) int64, width and height; outputs labels (1, N), boxes (1, N, 4) in
image pixels, scores (1, N); COCO's 80 classes, person is 0.

torchvision (`torch.onnx.export` of a model of torchvision.models.detection): one image (3, H, W) or (1, 3, H, W)
float32 RGB 0..1, normalised inside; outputs boxes (N, 4) in network pixels, labels (N,), scores (N,); COCO's 91
categories, person is 1.
"""

import numpy as np
from numpy.typing import NDArray

from qanet.runtime.detectors.base import Candidates
from qanet.runtime.detectors.graph import Graph, Port, letterbox, planar


class DetrSet:
    """RT-DETR and D-FINE."""

    known_as = "RT-DETR, D-FINE: labels (1, N), boxes (1, N, 4), scores (1, N), with a second input (1, 2) of sizes"
    needs_nms = False

    def __init__(self, input_hw: tuple[int, int], person: int, image_first: bool, order: tuple[int, int, int]):
        self._input_hw, self._person, self._image_first, self._order = input_hw, person, image_first, order

    @classmethod
    def of(cls, graph: Graph) -> "DetrSet | None":
        """See `Yolox.of`."""
        order = _boxes_labels_scores(graph.outputs, batched=True)
        sizes = [k for k, port in enumerate(graph.inputs) if port.integer and port.shape == (1, 2)]
        if order is None or graph.image_hw is None or len(graph.inputs) != 2 or len(sizes) != 1:
            return None
        return cls(graph.image_hw, graph.person(default=0), sizes == [1], order)

    def feed(self, image: NDArray[np.uint8]) -> list[NDArray]:
        """See `Yolox.feed`."""
        import cv2

        blob = planar(cv2.resize(image, self._input_hw[::-1]), rgb01=True)
        sizes = np.array([[image.shape[1], image.shape[0]]], np.int64)
        return [blob, sizes] if self._image_first else [sizes, blob]

    def decode(self, outputs: list[NDArray], threshold: float) -> Candidates:
        """See `Yolox.decode`."""
        boxes, labels, scores = (outputs[k][0] for k in self._order)
        chosen = (np.rint(labels) == self._person) & (scores >= threshold)
        return boxes[chosen].astype(np.float32), scores[chosen]


class TorchvisionSet:
    """Faster R-CNN, FCOS, RetinaNet, SSD of torchvision; what a mask or keypoint model adds is left alone."""

    known_as = "torchvision: boxes (N, 4), labels (N), scores (N)"
    needs_nms = False

    def __init__(self, input_hw: tuple[int, int], person: int, batched: bool, order: tuple[int, int, int]):
        self._input_hw, self._person, self._batched, self._order = input_hw, person, batched, order

    @classmethod
    def of(cls, graph: Graph) -> "TorchvisionSet | None":
        """See `Yolox.of`."""
        order = _boxes_labels_scores(graph.outputs, batched=False)
        if order is None or graph.image_hw is None or len(graph.inputs) != 1:
            return None
        return cls(graph.image_hw, graph.person(default=1), len(graph.inputs[0].shape) == 4, order)

    def feed(self, image: NDArray[np.uint8]) -> list[NDArray]:
        """See `Yolox.feed`."""
        blob, self._lies = letterbox(image, self._input_hw, centred=False, rgb01=True)
        return [blob if self._batched else blob[0]]

    def decode(self, outputs: list[NDArray], threshold: float) -> Candidates:
        """See `Yolox.decode`."""
        boxes, labels, scores = (outputs[k] for k in self._order)
        chosen = (np.rint(labels) == self._person) & (scores >= threshold)
        return self._lies.to_image(boxes[chosen]), scores[chosen]


def _boxes_labels_scores(outputs: tuple[Port, ...], batched: bool) -> tuple[int, int, int] | None:
    """Which outputs are the boxes, the labels and the scores: by shape and type, by name where types do not tell."""
    rank = 2 if batched else 1
    boxes = [k for k, port in enumerate(outputs) if len(port.shape) == rank + 1 and port.shape[-1] == 4]
    flat = [k for k, port in enumerate(outputs) if len(port.shape) == rank]
    labels = [k for k in flat if outputs[k].integer] or [k for k in flat if "label" in outputs[k].name]
    scores = [k for k in flat if k not in labels]
    if not (len(boxes) == len(labels) == len(scores) == 1) or (batched and len(outputs) != 3):
        return None
    return boxes[0], labels[0], scores[0]
