"""A Kalman filter of constant velocity for one box.

State: centre, width and height with a velocity each, as in ByteTrack (arXiv 2110.06864), with noise in proportion to
the height. The four coordinates do not mix and their noise is independent, so the 8x8 filter falls into four of 2x2.
"""

import numpy as np
from numpy.typing import NDArray

_POSITION_NOISE = 1 / 20  # of the height, a frame: the weights of SORT's successors
_VELOCITY_NOISE = 1 / 160
_LEAST_SIDE_PX = 1.0


class Motion:
    """Where a box is and where it goes; times are frames."""

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
        """One frame on. The size stays where no detector measures it: it would run away."""
        if keep_size:
            self.velocity[2:] = 0
        height = self.position[3]
        self.position = self.position + self.velocity
        self._pp = self._pp + 2 * self._pv + self._vv + (_POSITION_NOISE * height) ** 2
        self._pv = self._pv + self._vv
        self._vv = self._vv + (_VELOCITY_NOISE * height) ** 2

    def correct(self, box: NDArray[np.float32]) -> None:
        """A measured box of this frame."""
        surprise = _centre_size(box) - self.position
        total = self._pp + (_POSITION_NOISE * self.position[3]) ** 2
        gain_p, gain_v = self._pp / total, self._pv / total
        self.position = self.position + gain_p * surprise
        self.velocity = self.velocity + gain_v * surprise
        self._vv = self._vv - gain_v * self._pv
        self._pp, self._pv = (1 - gain_p) * self._pp, (1 - gain_p) * self._pv

    def scale(self, factors_xy: tuple[float, float]) -> None:
        """The frames have another size from now on."""
        both = np.array([*factors_xy, *factors_xy])
        self.position, self.velocity = self.position * both, self.velocity * both
        self._pp, self._pv, self._vv = self._pp * both**2, self._pv * both**2, self._vv * both**2


def _centre_size(box: NDArray[np.float32]) -> NDArray[np.float64]:
    box = np.asarray(box, np.float64)
    return np.concatenate([(box[:2] + box[2:]) / 2, box[2:] - box[:2]])
