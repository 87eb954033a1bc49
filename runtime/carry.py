"""People carried from frame to frame by their own parsing.

Between detections, and where the detector misses, a person is looked for again where their parts just were. A
detection that overlaps takes over the box, so that nothing drifts for long; a carried person whose parsing is
no longer trusted, or who was not confirmed for a while, is let go. Identities follow the overlap.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qanet.results import ParsingResult, PersonParsing
from qanet.runtime.detectors.base import Detections, pairwise_iou, suppress

_SAME_PERSON_IOU = 0.3
_DUPLICATE_IOU = 0.7
_MIN_QUALITY = 0.55  # of the fused score, with the box score left out: trust in the parsing alone
_SCORE_DECAY = 0.97  # a frame without a detection
_MIN_SCORE = 0.2
_MIN_SIDE_PX = 12
_AREA_CHANGE = 2.5  # a box that grows or shrinks more between two frames has jumped to something else


@dataclass
class _Track:
    track_id: int
    box: NDArray[np.float32]
    score: float


class CarriedPeople:
    """Proposes boxes for the next frame from detections and from the last result."""

    def __init__(self) -> None:
        self._tracks: list[_Track] = []
        self._next_id = 1

    def propose(self, found: Detections | None) -> Detections:
        """Boxes to parse in this frame: `found`, and the carried people it does not overlap.

        Args:
            found: this frame's detections; None when the detector did not run.
        Returns:
            Detections with `track_ids` (N,) int64.
        """
        boxes = found.boxes if found is not None else np.zeros((0, 4), np.float32)
        scores = found.scores if found is not None else np.zeros(0, np.float32)
        carried = np.array([t.box for t in self._tracks], np.float32).reshape(-1, 4)
        overlaps = pairwise_iou(boxes, carried)
        ids = np.zeros(len(boxes), np.int64)
        free = np.ones(len(carried), bool)
        for row in np.argsort(-scores, kind="stable"):
            column = int(np.argmax(np.where(free, overlaps[row], -1))) if free.any() else -1
            if column >= 0 and overlaps[row, column] >= _SAME_PERSON_IOU:
                free[column] = False
                ids[row] = self._tracks[column].track_id
            else:
                ids[row], self._next_id = self._next_id, self._next_id + 1
        kept = [k for k in np.flatnonzero(free) if self._tracks[k].score * _SCORE_DECAY >= _MIN_SCORE]
        merged = Detections(
            np.concatenate([boxes, carried[kept]]),
            np.array([*scores, *(self._tracks[k].score * _SCORE_DECAY for k in kept)], np.float32),
            np.array([*ids, *(self._tracks[k].track_id for k in kept)], np.int64),
        )
        return merged.take(suppress(merged.boxes, merged.scores, _DUPLICATE_IOU))

    def update(self, result: ParsingResult) -> None:
        """Remember where this frame's people are."""
        self._tracks = []
        for person in result:
            if person.track_id is None or (person.iou_score * person.pixel_score) ** 0.5 < _MIN_QUALITY:
                continue
            box = labelled_box(person)
            if box is not None and _similar_area(box, person.box):
                self._tracks.append(_Track(person.track_id, box, person.box_score))


def _similar_area(a: NDArray[np.float32], b: NDArray[np.float32]) -> bool:
    ratio = float((a[2:] - a[:2]).prod() / max(float((b[2:] - b[:2]).prod()), 1e-6))
    return 1 / _AREA_CHANGE <= ratio <= _AREA_CHANGE


def labelled_box(person: PersonParsing) -> NDArray[np.float32] | None:
    """Tight xyxy box of a person's labelled pixels, stray specks left out; None where too little is left."""
    import cv2

    if person.labels.size == 0:
        return None
    mask = (person.labels > 0).astype(np.uint8)
    count, _, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    if count < 2:
        return None
    areas = stats[1:, cv2.CC_STAT_AREA]
    large = stats[1:][areas >= 0.1 * areas.sum()]
    if len(large) == 0:
        return None
    low = large[:, :2].min(0)
    high = (large[:, :2] + large[:, 2:4]).max(0)
    if (high - low).min() < _MIN_SIDE_PX:
        return None
    x0, y0 = person.roi[:2]
    return np.array([low[0] + x0, low[1] + y0, high[0] + x0, high[1] + y0], np.float32)
