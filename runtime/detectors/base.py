"""What a detector gives, and what becomes of boxes."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Detections:
    """People of one image: boxes (N, 4) float32 xyxy pixels, scores (N,) float32 in [0, 1]."""

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    track_ids: NDArray[np.int64] | None = None  # (N,) identities in video

    def __len__(self) -> int:
        return len(self.boxes)

    def take(self, which: NDArray[np.intp] | slice) -> "Detections":
        """The chosen ones."""
        ids = None if self.track_ids is None else self.track_ids[which]
        return Detections(self.boxes[which], self.scores[which], ids)


Candidates = tuple[NDArray[np.float32], NDArray[np.float32]]  # boxes (N, 4) xyxy, scores (N,), in no order
NOBODY = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))


class Detector(Protocol):
    """Finds people in a BGR image."""

    name: str

    def detect(self, image: NDArray[np.uint8], frame: int | str = 0) -> Detections:
        """People in an (H, W, 3) uint8 BGR image; `frame` names it for detectors that look boxes up."""
        ...


def clip_boxes(boxes: NDArray[np.float32], image_hw: tuple[int, int]) -> NDArray[np.float32]:
    """Boxes cut to the image."""
    limit = np.array([image_hw[1], image_hw[0]] * 2, np.float32)
    return np.clip(boxes, 0, limit)
