"""Forms of detector outputs: a known ONNX export is recognised by its inputs and outputs, and decoded into boxes.

Known forms, the first that fits is taken:
- YOLOX (arXiv 2107.08430; demo/ONNXRuntime of its authors);
- Ultralytics' `yolo export format=onnx` (v8, v11 and their relatives), raw or end to end;
- RT-DETR and D-FINE (`tools/export_onnx.py` of their authors);
- torchvision (`torch.onnx.export` of a model of torchvision.models.detection);
- YuNet, the face detector of OpenCV's model zoo (Wu, Peng and Yu 2023; face_detection_yunet_2023mar.onnx).
"""

from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from qanet.errors import QanetError
from qanet.runtime.detectors.base import Candidates
from qanet.runtime.detectors.graph import Graph, Letterbox, Port, letterbox, planar

STRIDES = (8, 16, 32)


class Form(Protocol):
    """A form of detector: what goes into its graph, and how its outputs are read."""

    known_as: str
    needs_nms: bool

    def feed(self, image: NDArray[np.uint8]) -> list[NDArray]:
        """The graph's inputs for an (H, W, 3) uint8 BGR image."""
        ...

    def decode(self, outputs: list[NDArray], threshold: float) -> Candidates:
        """People (or faces) of `threshold` or more from the outputs of the last `feed`: boxes in image pixels."""
        ...


def recognise(graph: Graph, name: str) -> Form:
    """The form of a graph; QanetError, with its ports and the known forms, where there is none.

    Args:
        name: of the file, for the error.
    """
    for form in _FORMS:
        found: Form | None = form.of(graph)
        if found is not None:
            return found
    seen = "; ".join(
        f"{kind} {', '.join(map(str, ports))}" for kind, ports in (("inputs", graph.inputs), ("outputs", graph.outputs))
    )
    raise QanetError(
        f"{name} is not a detector this version knows",
        expected=" | ".join(form.known_as for form in _FORMS),
        got=seen,
        next_command="export it in one of these forms, or give boxes with --boxes FILE",
    )


class _Letterboxed:
    """A graph of one image in its own aspect, scaled to the network's input."""

    centred: ClassVar[bool]
    rgb01: ClassVar[bool]

    def __init__(self, input_hw: tuple[int, int]):
        self._input_hw = input_hw
        self._placed = Letterbox(1.0, (0.0, 0.0))

    def feed(self, image: NDArray[np.uint8]) -> list[NDArray]:
        """See `Form.feed`."""
        blob, self._placed = letterbox(image, self._input_hw, self.centred, self.rgb01)
        return [blob]


class Yolox(_Letterboxed):
    """YOLOX.

    Input (1, 3, H, W) float32 BGR 0..255, letterboxed at the top left with 114. Output (1, A, 5 + K) raw: centre,
    size, objectness, K class scores, on grids of strides 8, 16 and 32. Class 0 of COCO is person.
    """

    known_as = "YOLOX: (1, A, 5 + classes), A = H*W*21/1024"
    needs_nms = True
    centred, rgb01 = False, False

    def __init__(self, input_hw: tuple[int, int], person: int):
        super().__init__(input_hw)
        self._person = person
        self._grid, self._stride = _anchors(input_hw)

    @classmethod
    def of(cls, graph: Graph) -> "Yolox | None":
        """The decoder of a graph of this form, None for any other."""
        input_hw, shape = graph.image_hw, _only_output(graph)
        if input_hw is None or shape is None or shape[1] != _anchor_count(input_hw) or (shape[2] or 0) <= 5:
            return None
        return cls(input_hw, graph.person(default=0))

    def decode(self, outputs: list[NDArray], threshold: float) -> Candidates:
        """See `Form.decode`."""
        raw = outputs[0][0]  # (A, 5 + K)
        scores = raw[:, 4] * raw[:, 5 + self._person]
        chosen = np.flatnonzero(scores >= threshold)
        centre = (raw[chosen, :2] + self._grid[chosen]) * self._stride[chosen]
        half = np.exp(raw[chosen, 2:4]) * self._stride[chosen] / 2
        return self._placed.to_image(np.concatenate([centre - half, centre + half], 1)), scores[chosen]


class UltralyticsRaw(_Letterboxed):
    """Ultralytics without suppression.

    Input (1, 3, H, W) float32 RGB 0..1, letterboxed in the middle with 114. Output (1, 4 + K, A) in network pixels:
    centre, size and K class scores of each anchor. The class names are in the file's metadata.
    """

    known_as = "Ultralytics: (1, 4 + classes, A)"
    needs_nms = True
    centred, rgb01 = True, True

    def __init__(self, input_hw: tuple[int, int], person: int):
        super().__init__(input_hw)
        self._person = person

    @classmethod
    def of(cls, graph: Graph) -> "UltralyticsRaw | None":
        """See `Yolox.of`."""
        input_hw, shape = graph.image_hw, _only_output(graph)
        if input_hw is None or shape is None or shape[2] != _anchor_count(input_hw):
            return None
        person = graph.person(default=0)
        return cls(input_hw, person) if (shape[1] or 0) > 4 + person else None

    def decode(self, outputs: list[NDArray], threshold: float) -> Candidates:
        """See `Form.decode`."""
        raw = outputs[0][0]  # (4 + K, A)
        scores = raw[4 + self._person]
        chosen = np.flatnonzero(scores >= threshold)
        centre, half = raw[:2, chosen].T, raw[2:4, chosen].T / 2
        return self._placed.to_image(np.concatenate([centre - half, centre + half], 1)), scores[chosen]


class UltralyticsEndToEnd(_Letterboxed):
    """Ultralytics with suppression in the graph (nms=True, and the models that need none).

    Input as `UltralyticsRaw`. Output (1, N, 6) in network pixels: x0, y0, x1, y1, score, class.
    """

    known_as = "Ultralytics end to end: (1, N, 6)"
    needs_nms = False
    centred, rgb01 = True, True

    def __init__(self, input_hw: tuple[int, int], person: int):
        super().__init__(input_hw)
        self._person = person

    @classmethod
    def of(cls, graph: Graph) -> "UltralyticsEndToEnd | None":
        """See `Yolox.of`."""
        input_hw, shape = graph.image_hw, _only_output(graph)
        if input_hw is None or shape is None or shape[2] != 6:
            return None
        return cls(input_hw, graph.person(default=0))

    def decode(self, outputs: list[NDArray], threshold: float) -> Candidates:
        """See `Form.decode`."""
        rows = outputs[0][0]  # (N, 6)
        rows = rows[(rows[:, 4] >= threshold) & (np.rint(rows[:, 5]) == self._person)]
        return self._placed.to_image(rows[:, :4]), rows[:, 4]


class DetrSet:
    """RT-DETR and D-FINE.

    Inputs images (1, 3, H, W) float32 RGB 0..1, resized to the network's size, and orig_target_sizes (1, 2) int64,
    width and height. Outputs labels (1, N), boxes (1, N, 4) in image pixels, scores (1, N). COCO's 80 classes, person
    is 0.
    """

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
        """See `Form.feed`."""
        import cv2

        blob = planar(cv2.resize(image, self._input_hw[::-1]), rgb01=True)
        sizes = np.array([[image.shape[1], image.shape[0]]], np.int64)
        return [blob, sizes] if self._image_first else [sizes, blob]

    def decode(self, outputs: list[NDArray], threshold: float) -> Candidates:
        """See `Form.decode`."""
        boxes, labels, scores = (outputs[k][0] for k in self._order)
        chosen = (np.rint(labels) == self._person) & (scores >= threshold)
        return boxes[chosen].astype(np.float32), scores[chosen]


class TorchvisionSet(_Letterboxed):
    """Faster R-CNN, FCOS, RetinaNet, SSD of torchvision; further outputs of a mask or keypoint model are not read.

    Input one image (3, H, W) or (1, 3, H, W) float32 RGB 0..1, normalised inside. Outputs boxes (N, 4) in network
    pixels, labels (N,), scores (N,). COCO's 91 categories, person is 1.
    """

    known_as = "torchvision: boxes (N, 4), labels (N), scores (N)"
    needs_nms = False
    centred, rgb01 = False, True

    def __init__(self, input_hw: tuple[int, int], person: int, batched: bool, order: tuple[int, int, int]):
        super().__init__(input_hw)
        self._person, self._batched, self._order = person, batched, order

    @classmethod
    def of(cls, graph: Graph) -> "TorchvisionSet | None":
        """See `Yolox.of`."""
        order = _boxes_labels_scores(graph.outputs, batched=False)
        if order is None or graph.image_hw is None or len(graph.inputs) != 1:
            return None
        return cls(graph.image_hw, graph.person(default=1), len(graph.inputs[0].shape) == 4, order)

    def feed(self, image: NDArray[np.uint8]) -> list[NDArray]:
        """See `Form.feed`."""
        blob = super().feed(image)[0]
        return [blob if self._batched else blob[0]]

    def decode(self, outputs: list[NDArray], threshold: float) -> Candidates:
        """See `Form.decode`."""
        boxes, labels, scores = (outputs[k] for k in self._order)
        chosen = (np.rint(labels) == self._person) & (scores >= threshold)
        return self._placed.to_image(boxes[chosen]), scores[chosen]


class Yunet(_Letterboxed):
    """YuNet, of faces; its five points per face are not read.

    Input (1, 3, H, W) float32 BGR 0..255. For strides 8, 16 and 32, outputs cls_S and obj_S (1, A, 1), bbox_S
    (1, A, 4) and kps_S (1, A, 10), A = H*W/S/S: score of the class and of the object, centre and size of the face.
    """

    known_as = "YuNet (faces): cls_S, obj_S (1, A, 1), bbox_S (1, A, 4) for the strides 8, 16, 32"
    needs_nms = True
    centred, rgb01 = False, False

    def __init__(self, input_hw: tuple[int, int], places: dict[str, int]):
        super().__init__(input_hw)
        self._places = places

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

    def decode(self, outputs: list[NDArray], threshold: float) -> Candidates:
        """See `Form.decode`."""
        levels = [self._level(outputs, stride, threshold) for stride in STRIDES]
        boxes, scores = (np.concatenate(parts) for parts in zip(*levels))
        return self._placed.to_image(boxes), scores

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


_FORMS = (Yolox, UltralyticsRaw, UltralyticsEndToEnd, DetrSet, TorchvisionSet, Yunet)


def _only_output(graph: Graph) -> tuple[int | None, ...] | None:
    """The shape of the one output, of rank 3, of a graph of one input."""
    if len(graph.inputs) != 1 or len(graph.outputs) != 1 or len(graph.outputs[0].shape) != 3:
        return None
    return graph.outputs[0].shape


def _anchor_count(input_hw: tuple[int, int]) -> int:
    """Cells of the three grids together."""
    return sum((input_hw[0] // stride) * (input_hw[1] // stride) for stride in STRIDES)


def _anchors(input_hw: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cell (x, y) and stride of every anchor: (A, 2) and (A, 1) float32."""
    cells, strides = [], []
    for stride in STRIDES:
        rows, columns = input_hw[0] // stride, input_hw[1] // stride
        ys, xs = np.mgrid[:rows, :columns]
        cells.append(np.stack([xs.ravel(), ys.ravel()], 1))
        strides.append(np.full((rows * columns, 1), stride))
    return np.concatenate(cells).astype(np.float32), np.concatenate(strides).astype(np.float32)


def _boxes_labels_scores(outputs: tuple[Port, ...], batched: bool) -> tuple[int, int, int] | None:
    """Positions of boxes, labels and scores: by shape and type, by name where all types are alike."""
    rank = 2 if batched else 1
    boxes = [k for k, port in enumerate(outputs) if len(port.shape) == rank + 1 and port.shape[-1] == 4]
    flat = [k for k, port in enumerate(outputs) if len(port.shape) == rank]
    labels = [k for k in flat if outputs[k].integer] or [k for k in flat if "label" in outputs[k].name]
    scores = [k for k in flat if k not in labels]
    if not (len(boxes) == len(labels) == len(scores) == 1) or (batched and len(outputs) != 3):
        return None
    return boxes[0], labels[0], scores[0]
