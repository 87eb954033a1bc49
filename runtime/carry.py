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
_MEMORY_FRAMES = 10  # an unseen person keeps the number for so long
_NEW = 0
_MAX_SHRINK = 0.08  # of its size a side moves inwards between frames: parts that flicker do not wear the box down
_AREA_CHANGE = 2.5  # a box that grows or shrinks more between two frames has jumped to something else


@dataclass
class _Track:
    track_id: int
    box: NDArray[np.float32]  # where the person is expected next, xyxy pixels
    score: float
    trusted: bool  # looked for again without a detection; otherwise only the identity is kept
    frames_unseen: int = 0


class CarriedPeople:
    """Proposes boxes for the next frame from detections and from the last result."""

    def __init__(self) -> None:
        self._tracks: list[_Track] = []
        self._next_id = 1

    def propose(self, found: Detections | None) -> Detections:
        """Boxes to parse in this frame: `found`, and the trusted people it does not overlap.

        Args:
            found: this frame's detections; None when the detector did not run.
        Returns:
            Detections with `track_ids` (N,) int64; each box stands once.
        """
        boxes = found.boxes if found is not None else np.zeros((0, 4), np.float32)
        scores = found.scores if found is not None else np.zeros(0, np.float32)
        ids, free = self._match(boxes, scores)
        carried = [t for t in free if t.trusted and t.score * _SCORE_DECAY >= _MIN_SCORE]
        merged = Detections(
            np.concatenate([boxes, np.array([t.box for t in carried], np.float32).reshape(-1, 4)]),
            np.array([*scores, *(t.score * _SCORE_DECAY for t in carried)], np.float32),
            np.array([*ids, *(t.track_id for t in carried)], np.int64),
        )
        chosen = merged.take(suppress(merged.boxes, merged.scores, _DUPLICATE_IOU))
        assert chosen.track_ids is not None
        for row in np.flatnonzero(chosen.track_ids == _NEW):  # numbered last, so that duplicates use up none
            chosen.track_ids[row], self._next_id = self._next_id, self._next_id + 1
        return chosen

    def _match(self, boxes: NDArray[np.float32], scores: NDArray[np.float32]) -> tuple[NDArray[np.int64], list[_Track]]:
        """Identity of each detection (_NEW where it has none), best score first, and the tracks left over."""
        overlaps = pairwise_iou(boxes, np.array([t.box for t in self._tracks], np.float32).reshape(-1, 4))
        ids = np.full(len(boxes), _NEW, np.int64)
        free = np.ones(len(self._tracks), bool)
        for row in np.argsort(-scores, kind="stable"):
            if not free.any():
                break
            column = int(np.argmax(np.where(free, overlaps[row], -1)))
            if overlaps[row, column] >= _SAME_PERSON_IOU:
                free[column] = False
                ids[row] = self._tracks[column].track_id
        return ids, [self._tracks[k] for k in np.flatnonzero(free)]

    def update(self, result: ParsingResult) -> None:
        """Remember where this frame's people are, and for a while where the unseen ones were."""
        seen = {person.track_id for person in result}
        unseen = [t for t in self._tracks if t.track_id not in seen and t.frames_unseen < _MEMORY_FRAMES]
        self._tracks = [_Track(t.track_id, t.box, t.score, False, t.frames_unseen + 1) for t in unseen]
        for person in result:
            if person.track_id is None:
                continue
            box = labelled_box(person)
            trusted = (person.iou_score * person.pixel_score) ** 0.5 >= _MIN_QUALITY
            trusted = trusted and box is not None and _similar_area(box, person.box)
            expected = _followed(person.box, box) if trusted and box is not None else person.box
            self._tracks.append(_Track(person.track_id, expected, person.box_score, trusted))


def _similar_area(a: NDArray[np.float32], b: NDArray[np.float32]) -> bool:
    ratio = float((a[2:] - a[:2]).prod() / max(float((b[2:] - b[:2]).prod()), 1e-6))
    return 1 / _AREA_CHANGE <= ratio <= _AREA_CHANGE


def _followed(old: NDArray[np.float32], new: NDArray[np.float32]) -> NDArray[np.float32]:
    """`new`, but with no side further inside `old` than a person may shrink between two frames."""
    slack = _MAX_SHRINK * (old[2:] - old[:2])
    return np.concatenate([np.minimum(new[:2], old[:2] + slack), np.maximum(new[2:], old[2:] - slack)])


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
