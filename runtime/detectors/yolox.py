"""YOLOX from its ONNX export (arXiv 2107.08430; demo/ONNXRuntime of its authors).

Input (1, 3, H, W) float32 BGR 0..255, letterboxed at the top left with 114; output (1, A, 5 + K) raw: centre,
size, objectness, K class scores, on grids of strides 8, 16 and 32. Class 0 of COCO is person.
"""

import numpy as np
from numpy.typing import NDArray

from qanet.runtime.detectors.base import Candidates
from qanet.runtime.detectors.graph import Graph, letterbox

STRIDES = (8, 16, 32)


class Yolox:
    """Decodes what a YOLOX graph says."""

    known_as = "YOLOX: (1, A, 5 + classes), A = H*W*21/1024"
    needs_nms = True

    def __init__(self, input_hw: tuple[int, int], person: int):
        self._input_hw, self._person = input_hw, person
        self._grid, self._stride = _anchors(input_hw)

    @classmethod
    def of(cls, graph: Graph) -> "Yolox | None":
        """The decoder of a graph of this family, None for any other."""
        input_hw, outputs = graph.image_hw, [port.shape for port in graph.outputs]
        if input_hw is None or len(graph.inputs) != 1 or len(outputs) != 1 or len(outputs[0]) != 3:
            return None
        if outputs[0][1] != anchor_count(input_hw) or (outputs[0][2] or 0) <= 5:
            return None
        return cls(input_hw, graph.person(default=0))

    def feed(self, image: NDArray[np.uint8]) -> list[NDArray]:
        """What goes into the graph."""
        blob, self._lies = letterbox(image, self._input_hw, centred=False, rgb01=False)
        return [blob]

    def decode(self, outputs: list[NDArray], threshold: float) -> Candidates:
        """People of `threshold` or more: boxes in image pixels."""
        raw = outputs[0][0]  # (A, 5 + K)
        scores = raw[:, 4] * raw[:, 5 + self._person]
        chosen = np.flatnonzero(scores >= threshold)
        centre = (raw[chosen, :2] + self._grid[chosen]) * self._stride[chosen]
        half = np.exp(raw[chosen, 2:4]) * self._stride[chosen] / 2
        return self._lies.to_image(np.concatenate([centre - half, centre + half], 1)), scores[chosen]


def anchor_count(input_hw: tuple[int, int]) -> int:
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
