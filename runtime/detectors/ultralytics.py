"""Exports of Ultralytics' `yolo export format=onnx` (v8, v11 and their kin).

Input (1, 3, H, W) float32 RGB 0..1, letterboxed in the middle with 114. Two forms of output, in network pixels:
(1, 4 + K, A): centre, size and K class scores of every anchor, to be suppressed here; or, exported end to end
(nms=True, and the models that need none), (1, N, 6): x0, y0, x1, y1, score, class. The class names lie in the file.
"""

import numpy as np
from numpy.typing import NDArray

from qanet.runtime.detectors.base import Candidates
from qanet.runtime.detectors.graph import Graph, letterbox
from qanet.runtime.detectors.yolox import anchor_count


class UltralyticsRaw:
    """Decodes the anchors."""

    known_as = "Ultralytics: (1, 4 + classes, A)"
    needs_nms = True

    def __init__(self, input_hw: tuple[int, int], person: int):
        self._input_hw, self._person = input_hw, person

    @classmethod
    def of(cls, graph: Graph) -> "UltralyticsRaw | None":
        """See `Yolox.of`."""
        input_hw, shape = graph.image_hw, _only_output(graph)
        if input_hw is None or shape is None or shape[2] != anchor_count(input_hw):
            return None
        person = graph.person(default=0)
        return cls(input_hw, person) if (shape[1] or 0) > 4 + person else None

    def feed(self, image: NDArray[np.uint8]) -> list[NDArray]:
        """See `Yolox.feed`."""
        blob, self._lies = letterbox(image, self._input_hw, centred=True, rgb01=True)
        return [blob]

    def decode(self, outputs: list[NDArray], threshold: float) -> Candidates:
        """See `Yolox.decode`."""
        raw = outputs[0][0]  # (4 + K, A)
        scores = raw[4 + self._person]
        chosen = np.flatnonzero(scores >= threshold)
        centre, half = raw[:2, chosen].T, raw[2:4, chosen].T / 2
        return self._lies.to_image(np.concatenate([centre - half, centre + half], 1)), scores[chosen]


class UltralyticsEndToEnd:
    """Reads the rows that the graph has already chosen."""

    known_as = "Ultralytics end to end: (1, N, 6)"
    needs_nms = False

    def __init__(self, input_hw: tuple[int, int], person: int):
        self._input_hw, self._person = input_hw, person

    @classmethod
    def of(cls, graph: Graph) -> "UltralyticsEndToEnd | None":
        """See `Yolox.of`."""
        input_hw, shape = graph.image_hw, _only_output(graph)
        if input_hw is None or shape is None or shape[2] != 6:
            return None
        return cls(input_hw, graph.person(default=0))

    def feed(self, image: NDArray[np.uint8]) -> list[NDArray]:
        """See `Yolox.feed`."""
        blob, self._lies = letterbox(image, self._input_hw, centred=True, rgb01=True)
        return [blob]

    def decode(self, outputs: list[NDArray], threshold: float) -> Candidates:
        """See `Yolox.decode`."""
        rows = outputs[0][0]  # (N, 6)
        rows = rows[(rows[:, 4] >= threshold) & (np.rint(rows[:, 5]) == self._person)]
        return self._lies.to_image(rows[:, :4]), rows[:, 4]


def _only_output(graph: Graph) -> tuple[int | None, ...] | None:
    """The shape of the one output of rank 3 behind the one input."""
    if len(graph.inputs) != 1 or len(graph.outputs) != 1 or len(graph.outputs[0].shape) != 3:
        return None
    return graph.outputs[0].shape
