"""People carried from frame to frame by their motion and their own parsing.

Between detections, and where the detector misses a person, the box is predicted from the track. An overlapping
detection replaces it, so drift is short. A carried person whose parsing is not trusted any more is not parsed, but
keeps the number for a while: a person who reappears where the motion leads gets the same number.
"""

import numpy as np
from numpy.typing import NDArray

from qanet.geometry import pairwise_iou, suppress
from qanet.results import People, Person
from qanet.runtime.detectors.base import NOBODY, Detections, clip_boxes
from qanet.runtime.track.tracker import SCORE_DECAY, Track, Tracker

_DUPLICATE_IOU = 0.7  # of two detections
_HIDDEN_IOU = 0.6  # overlap above which a carried person is hidden: the parsing would show the person in front
_MIN_QUALITY = 0.55  # of the fused score without the box score: trust in the parsing alone
_MIN_SCORE = 0.2
_MIN_SIDE_PX = 12
_MAX_SHRINK = 0.08  # of its size that a side may move inwards per frame: flickering parts must not shrink it
_AREA_CHANGE = 2.5  # a box that grows or shrinks more between two frames has jumped to another object
_EXPECTED_IOU = 0.6  # a detection that overlaps its prediction less is a surprise
_MAX_MARGIN = 0.25  # of the detector's box around the labelled one, as a share of its size


class CarriedPeople:
    """Proposes boxes for the next frame from detections and from the last result.

    Args:
        carry: propose people without a detection; False only numbers the detected ones.

    Attributes:
        surprised: whether in the last detections a person was new, missing or elsewhere.
        uneasy: whether a person carried to the last frame is no longer trusted.
    """

    def __init__(self, carry: bool = True) -> None:
        self._tracker = Tracker()
        self._carry = carry
        self._image_hw: tuple[int, int] | None = None
        self._detected: set[int] = set()
        self.surprised = self.uneasy = False

    def propose(self, found: Detections | None, image_hw: tuple[int, int] | None = None) -> Detections:
        """Boxes to parse in this frame: the detections, and the trusted people that they do not cover.

        Args:
            found: detections of this frame; None if the detector did not run.
            image_hw: (H, W) pixels of this frame, if it may differ from the last.
        Returns:
            Detections with `track_ids` (N,) int64, without duplicates.
        """
        self._resize(image_hw)
        tracks = self._tracker
        tracks.predict()
        known = {track.track_id for track in tracks.tracks}
        given = self._numbered(found)
        assert given.track_ids is not None
        self._detected = set(given.track_ids.tolist())
        free = [t for t in tracks.tracks if self._carry and t.trusted and t.track_id not in self._detected]
        if found is not None:
            missed = any(track.score >= _MIN_SCORE for track in free)
            self.surprised = missed or not self._detected <= known or self._least_iou < _EXPECTED_IOU
        return self._with_carried(given, free)

    def _numbered(self, found: Detections | None) -> Detections:
        """The detections that have a track, with its number."""
        if found is None or len(found) == 0:
            self._least_iou = 1.0
            return Detections(NOBODY.boxes, NOBODY.scores, np.zeros(0, np.int64))
        single = found.take(suppress(found.boxes, found.scores, _DUPLICATE_IOU))
        ids, self._least_iou = self._tracker.match(single)
        mine = np.flatnonzero(ids)
        return Detections(single.boxes[mine], self._tracker.scores(ids[mine]), ids[mine])

    def _with_carried(self, given: Detections, free: list[Track]) -> Detections:
        """`given`, and the free tracks that are in the image and not hidden behind another person."""
        boxes, scores, ids = list(given.boxes), list(given.scores), list(given.track_ids)  # type: ignore[arg-type]
        for track in sorted(free, key=lambda t: -t.score):
            score, box = track.score * SCORE_DECAY, track.motion.box[None]
            if self._image_hw is not None:
                box = clip_boxes(box, self._image_hw)
            if score < _MIN_SCORE or (box[0, 2:] - box[0, :2]).min() < _MIN_SIDE_PX:
                continue
            if boxes and pairwise_iou(box, np.array(boxes, np.float32)).max() > _HIDDEN_IOU:
                continue
            boxes.append(box[0])
            scores.append(np.float32(score))
            ids.append(track.track_id)
        return Detections(
            np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32), np.array(ids, np.int64)
        )

    def _resize(self, image_hw: tuple[int, int] | None) -> None:
        """Rescale the tracks if the frame size changed."""
        if image_hw is not None and self._image_hw is not None and image_hw != self._image_hw:
            self._tracker.scale((image_hw[1] / self._image_hw[1], image_hw[0] / self._image_hw[0]))
        self._image_hw = image_hw or self._image_hw

    def update(self, result: People) -> None:
        """Correct the tracks by the parsing of this frame."""
        self._image_hw = result.image_size
        people = {person.track_id: person for person in result}
        self.uneasy = False
        for track in self._tracker.tracks:
            person = people.get(track.track_id)
            carried = not track.detected
            before = track.trusted
            if person is None:
                track.trusted, track.unseen = False, track.unseen + 1
            else:
                _learn(track, person, carried)
            self.uneasy |= carried and before and not track.trusted
        self._tracker.forget()


def _learn(track: Track, person: Person, carried: bool) -> None:
    """Decide whether to trust the parsing of a track; correct the motion by it if there was no detection."""
    labelled = labelled_box(person)
    trusted = (person.iou_score * person.pixel_score) ** 0.5 >= _MIN_QUALITY
    track.trusted = trusted and labelled is not None and _similar_area(labelled, person.box)
    track.score, track.unseen = person.box_score, 0
    if not track.trusted or labelled is None:
        return
    size = np.tile(labelled[2:] - labelled[:2], 2)
    if carried:
        track.motion.correct(_followed(person.box, labelled + track.margin * size))
    else:
        track.margin = np.clip((person.box - labelled) / size, -_MAX_MARGIN, _MAX_MARGIN)


def _similar_area(a: NDArray[np.float32], b: NDArray[np.float32]) -> bool:
    ratio = float((a[2:] - a[:2]).prod() / max(float((b[2:] - b[:2]).prod()), 1e-6))
    return 1 / _AREA_CHANGE <= ratio <= _AREA_CHANGE


def _followed(old: NDArray[np.float32], new: NDArray[np.float32]) -> NDArray[np.float32]:
    """`new`, with no side further inside `old` than `_MAX_SHRINK` allows."""
    slack = _MAX_SHRINK * (old[2:] - old[:2])
    return np.concatenate([np.minimum(new[:2], old[:2] + slack), np.maximum(new[2:], old[2:] - slack)])


def labelled_box(person: Person) -> NDArray[np.float32] | None:
    """(4,) float32 xyxy box of a person's labelled pixels without stray specks; None if too few are left."""
    import cv2

    left, top, width, height = cv2.boundingRect(person.labels) if person.labels.size else (0, 0, 0, 0)
    if min(width, height) < _MIN_SIDE_PX:
        return None
    inside = person.labels[top : top + height, left : left + width]
    # 8-connected pieces are two pixels apart; if their numbers fit 16 bits, half as much memory is read
    fits = ((width + 1) // 2) * ((height + 1) // 2) < 2**16
    numbers = cv2.CV_16U if fits else cv2.CV_32S
    count, _, stats, _ = cv2.connectedComponentsWithStats(inside, connectivity=8, ltype=numbers)
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
    x0, y0 = person.roi[0] + left, person.roi[1] + top
    return np.array([low[0] + x0, low[1] + y0, high[0] + x0, high[1] + y0], np.float32)
