"""ByteTrack's two-stage association (Zhang et al., ECCV 2022, arXiv 2110.06864).

Detections of a good score are matched with every track, seen or out of sight; then the doubtful ones, which are often
people half hidden, with the tracks still unmatched, and never begin a track of their own.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from qanet.geometry import pairwise_iou
from qanet.runtime.detectors.base import Detections
from qanet.runtime.tracking.assignment import assign
from qanet.runtime.tracking.motion import Motion

HIGH_SCORE = 0.35  # a detection that may begin a track
BYTE_SCORE = 0.1  # what a detector should give to a tracker
_FIRST_IOU = 0.2
_SECOND_IOU = 0.5
MEMORY_FRAMES = 30  # a person out of sight keeps the number for so long
SCORE_DECAY = 0.97  # a frame without a detection, or with a doubtful one
_NOBODY = 0  # no track has this number


@dataclass
class Track:
    """A person with a number.

    Attributes:
        score: the last good detection's, falling from frame to frame without one.
        trusted: whether the last parsing was convincing enough to look again without a detection.
        unseen: frames since the person was last confirmed.
        detected: in this frame.
        margin: (4,) what the detector's box has beyond the labelled pixels, as a share of their width and height.
    """

    track_id: int
    motion: Motion
    score: float
    trusted: bool = False
    unseen: int = 0
    detected: bool = True
    margin: NDArray[np.float32] = field(default_factory=lambda: np.zeros(4, np.float32))


class Tracker:
    """Numbers the people of a video. Call `predict` once a frame, then `match` where a detector has looked."""

    def __init__(self) -> None:
        self.tracks: list[Track] = []
        self._next_id = 1

    def predict(self) -> None:
        """One frame on."""
        for track in self.tracks:
            track.motion.predict(keep_size=not track.detected)
            track.detected = False

    def match(self, found: Detections) -> tuple[NDArray[np.int64], float]:
        """The number of each detection, 0 for a doubtful one that belongs to nobody; matched tracks are corrected.

        Returns:
            (N,) int64, and the smallest IoU of a match with its prediction; 1 without a match. The scores that count
            from now on are the tracks': a doubtful detection makes nobody doubtful at once.
        """
        ids = np.full(len(found), _NOBODY, np.int64)
        if len(found) == 0:
            return ids, 1.0
        predicted = np.array([t.motion.box for t in self.tracks], np.float32).reshape(-1, 4)
        overlaps = pairwise_iou(predicted, found.boxes)  # (tracks, detections)
        sure = found.scores >= HIGH_SCORE
        first = assign(np.where(sure[None], overlaps, 0), _FIRST_IOU)
        taken = {row for row, _ in first}
        seen = np.array([t.unseen == 0 and k not in taken for k, t in enumerate(self.tracks)], bool)
        doubtful = ~sure & (found.scores >= BYTE_SCORE)
        second = assign(np.where(seen[:, None] & doubtful[None], overlaps, 0), _SECOND_IOU)
        for row, column in first + second:
            track = self.tracks[row]
            track.motion.correct(found.boxes[column])
            least = 0 if sure[column] else track.score * SCORE_DECAY
            track.score, track.unseen = max(float(found.scores[column]), least), 0
            track.detected = True
            ids[column] = track.track_id
        for column in np.flatnonzero(sure & (ids == _NOBODY)).tolist():
            ids[column] = self._begin(found.boxes[column], float(found.scores[column]))
        return ids, min((float(overlaps[pair]) for pair in first + second), default=1.0)

    def _begin(self, box: NDArray[np.float32], score: float) -> int:
        track = Track(self._next_id, Motion(box), score)
        self.tracks.append(track)
        self._next_id += 1
        return track.track_id

    def scores(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """The scores of numbers that have a track."""
        known = {track.track_id: track.score for track in self.tracks}
        return np.array([known[int(number)] for number in ids], np.float32)

    def forget(self) -> None:
        """Let those go who have been out of sight for too long."""
        self.tracks = [track for track in self.tracks if track.unseen <= MEMORY_FRAMES]

    def scale(self, factors_xy: tuple[float, float]) -> None:
        """The frames have another size from now on."""
        for track in self.tracks:
            track.motion.scale(factors_xy)
