"""A tracker of boxes: motion of each person, two-stage association, and when to run the detector again.

The association is ByteTrack's (Zhang et al., ECCV 2022, arXiv 2110.06864): detections of a high score are matched with
all tracks, then those of a low score, often half hidden people, with the tracks that are left. Only a detection of a
high score starts a track.

Motion is a Kalman filter of constant velocity. Its state is centre, width and height, each with a velocity, and its
noise is proportional to the height, as in ByteTrack. The four coordinates are independent, so the 8x8 filter falls into
four filters of 2x2.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from qanet.geometry import pairwise_iou
from qanet.runtime.detectors.base import Detections

HIGH_SCORE = 0.35  # a detection that may begin a track
BYTE_SCORE = 0.1  # least score of the detections that the tracker needs
_FIRST_IOU = 0.2
_SECOND_IOU = 0.5
MEMORY_FRAMES = 30  # a person out of sight keeps the number for this long
SCORE_DECAY = 0.97  # per frame without a detection, or with one of a low score
_NOBODY = 0  # no track has this number


class Motion:
    """Position and velocity of a box; the unit of time is a frame."""

    def __init__(self, box: NDArray[np.float32]):
        self.position = _centre_size(box)  # (4,) centre x, centre y, width, height
        self.velocity = np.zeros(4)
        height = self.position[3]
        # (4,) each: variances of position and velocity, and their covariance
        self._pp = np.full(4, (2 * _POSITION_NOISE * height) ** 2)
        self._vv = np.full(4, (10 * _VELOCITY_NOISE * height) ** 2)
        self._pv = np.zeros(4)

    @property
    def box(self) -> NDArray[np.float32]:
        """(4,) xyxy pixels."""
        half = np.maximum(self.position[2:], _LEAST_SIDE_PX) / 2
        return np.concatenate([self.position[:2] - half, self.position[:2] + half]).astype(np.float32)

    def predict(self, keep_size: bool) -> None:
        """Advance one frame. The size stays if no detector measures it: its velocity would be a guess."""
        if keep_size:
            self.velocity[2:] = 0
        height = self.position[3]
        self.position = self.position + self.velocity
        self._pp = self._pp + 2 * self._pv + self._vv + (_POSITION_NOISE * height) ** 2
        self._pv = self._pv + self._vv
        self._vv = self._vv + (_VELOCITY_NOISE * height) ** 2

    def correct(self, box: NDArray[np.float32]) -> None:
        """Take in a measured box of this frame, (4,) xyxy pixels."""
        surprise = _centre_size(box) - self.position
        total = self._pp + (_POSITION_NOISE * self.position[3]) ** 2
        gain_p, gain_v = self._pp / total, self._pv / total
        self.position = self.position + gain_p * surprise
        self.velocity = self.velocity + gain_v * surprise
        self._vv = self._vv - gain_v * self._pv
        self._pp, self._pv = (1 - gain_p) * self._pp, (1 - gain_p) * self._pv

    def scale(self, factors_xy: tuple[float, float]) -> None:
        """Rescale to frames of another size."""
        both = np.array([*factors_xy, *factors_xy])
        self.position, self.velocity = self.position * both, self.velocity * both
        self._pp, self._pv, self._vv = self._pp * both**2, self._pv * both**2, self._vv * both**2


def assign(similarity: NDArray[np.floating], least: float) -> list[tuple[int, int]]:
    """Pairs (row, column) of the largest total similarity, none of them below `least`.

    Kuhn-Munkres by shortest augmenting paths: exact, because greedy pairs can leave one of two crossing people without
    a match. A crowd of 200 takes milliseconds, so SciPy is not needed.

    Args:
        similarity: (N, M), such as the IoU of tracks and detections.
    """
    admissible = similarity >= least
    rows, columns = np.flatnonzero(admissible.any(1)), np.flatnonzero(admissible.any(0))
    if len(rows) == 0:
        return []
    cost = -np.where(admissible, similarity, 0)[np.ix_(rows, columns)].astype(np.float64)
    flipped = len(rows) > len(columns)
    pairs = enumerate(_columns_of_rows(cost.T if flipped else cost))
    found = [(rows[b], columns[a]) if flipped else (rows[a], columns[b]) for a, b in pairs]
    return sorted((int(row), int(column)) for row, column in found if admissible[row, column])


class Cadence:
    """Frames between detections.

    Args:
        every: a fixed number; None adapts it between 1 and MAX_EVERY: one more after each detection without a
            surprise, back to 1 after a surprise.
    """

    def __init__(self, every: int | None):
        self.every = every or 1
        self._adaptive = every is None
        self._last: int | None = None
        self._urgent = False

    def wants(self, index: int) -> bool:
        """Whether to detect on this frame; call it once per frame, in order."""
        due = self._last is None or self._urgent or index - self._last >= self.every
        if due:
            self._last, self._urgent = index, False
        return due

    def learn(self, surprised: bool) -> None:
        """Adapt to a detection: `surprised` if a person was new, missing or elsewhere."""
        if self._adaptive:
            self.every = 1 if surprised else min(self.every + 1, MAX_EVERY)

    def hurry(self) -> None:
        """Detect on the next frame, because a carried person is no longer trusted."""
        self._urgent = self._adaptive


@dataclass
class Track:
    """A person with a number.

    Attributes:
        score: of the last detection with a high score, falling with every frame without one.
        trusted: whether the last parsing was good enough to parse the person again without a detection.
        unseen: frames since the person was last confirmed.
        detected: whether a detection of this frame matched.
        margin: (4,) margin of the detector's box around the labelled pixels, as a share of their width and height.
    """

    track_id: int
    motion: Motion
    score: float
    trusted: bool = False
    unseen: int = 0
    detected: bool = True
    margin: NDArray[np.float32] = field(default_factory=lambda: np.zeros(4, np.float32))


class Tracker:
    """Numbers the people of a video. Call `predict` once per frame, then `match` if the detector ran."""

    def __init__(self) -> None:
        self.tracks: list[Track] = []
        self._next_id = 1

    def predict(self) -> None:
        """Advance all tracks by one frame."""
        for track in self.tracks:
            track.motion.predict(keep_size=not track.detected)
            track.detected = False

    def match(self, found: Detections) -> tuple[NDArray[np.int64], float]:
        """Match detections with tracks, correct those, and start new tracks.

        Returns:
            (N,) int64 track number of each detection, 0 for one of a low score without a track; and the smallest IoU
            of a match with its prediction, 1 without a match. Use the scores of the tracks from then on: one detection
            of a low score does not lower them at once.
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
        """The scores of tracks by number, (N,) float32."""
        known = {track.track_id: track.score for track in self.tracks}
        return np.array([known[int(number)] for number in ids], np.float32)

    def forget(self) -> None:
        """Drop tracks that were out of sight for too long."""
        self.tracks = [track for track in self.tracks if track.unseen <= MEMORY_FRAMES]

    def scale(self, factors_xy: tuple[float, float]) -> None:
        """Rescale to frames of another size."""
        for track in self.tracks:
            track.motion.scale(factors_xy)


_POSITION_NOISE = 1 / 20  # of the height, per frame: the weights of SORT's successors
_VELOCITY_NOISE = 1 / 160
_LEAST_SIDE_PX = 1.0


def _centre_size(box: NDArray[np.float32]) -> NDArray[np.float64]:
    box = np.asarray(box, np.float64)
    return np.concatenate([(box[:2] + box[2:]) / 2, box[2:] - box[:2]])


def _columns_of_rows(cost: NDArray[np.float64]) -> NDArray[np.intp]:
    """(N,) column of each row in the cheapest assignment of all rows of an (N, M) cost, N <= M."""
    count, width = cost.shape
    row_price, column_price = np.zeros(count), np.zeros(width)
    owner = np.full(width, -1)  # row of each column, -1 if free
    for start in range(count):
        distance, previous = np.full(width, np.inf), np.full(width, -1)
        done = np.zeros(width, bool)
        row, column = start, -1
        while True:  # Dijkstra over the reduced costs, to the nearest free column
            reduced = cost[row] - row_price[row] - column_price
            if column >= 0:
                reduced += distance[column]
            nearer = ~done & (reduced < distance)
            distance[nearer], previous[nearer] = reduced[nearer], column
            column = int(np.argmin(np.where(done, np.inf, distance)))
            if owner[column] < 0:
                break
            done[column] = True
            row = owner[column]
        row_price[start] += distance[column]
        row_price[owner[done]] += distance[column] - distance[done]
        column_price[done] -= distance[column] - distance[done]
        while column >= 0:  # reassign the columns along the path
            before = int(previous[column])
            owner[column] = owner[before] if before >= 0 else start
            column = before
    given = np.empty(count, np.intp)
    given[owner[owner >= 0]] = np.flatnonzero(owner >= 0)
    return given


MAX_EVERY = 3  # frames that a new person may wait at most
