"""Where a person's pixels went: the shift by whole pixels at which they look most as they did."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_STRIDE = 4  # of the pixels that the fit looks at
_MAX_FIT_LEVELS = 20  # mean difference of the person's pixels beyond which they are not the same
_MIN_SHARED = 1 / 16  # of the region, that the person must fill where both frames see it

Roi = tuple[int, int, int, int]  # x0 y0 x1 y1 pixels
Slices = tuple[slice, slice]


@dataclass
class Look:
    """A person in a frame: the region, its soft grey picture and labels, and the centre of the box."""

    roi: Roi
    centre: NDArray[np.floating]  # x, y
    grey: NDArray[np.uint8]
    labels: NDArray[np.uint8]


def soft_grey(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Grey values over 5x5 pixels, in which the camera's noise is smaller; (H, W) uint8."""
    import cv2

    return np.asarray(cv2.blur(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), (5, 5)), np.uint8)


def still(a: NDArray[np.uint8], b: NDArray[np.uint8], levels: int) -> NDArray[np.bool_]:
    """Where two grey pictures of one shape differ by less than `levels`."""
    import cv2

    return np.asarray(cv2.absdiff(a, b) < levels)


def overlap(old: Roi, new: Roi, shift: tuple[int, int]) -> tuple[Slices, Slices]:
    """Where `old`, moved by `shift` (x, y), and `new` share pixels: the slices in `new` and in `old`."""
    low = [max(new[k], old[k] + shift[k]) for k in (0, 1)]
    high = [max(low[k], min(new[k + 2], old[k + 2] + shift[k])) for k in (0, 1)]
    here = tuple(slice(low[k] - new[k], high[k] - new[k]) for k in (1, 0))
    there = tuple(slice(low[k] - old[k] - shift[k], high[k] - old[k] - shift[k]) for k in (1, 0))
    return (here[0], here[1]), (there[0], there[1])


def fit(old: Look, new: Look) -> tuple[int, int] | None:
    """The shift (x, y) from `old` to `new`; None where the person does not fit anywhere.

    Starts from no motion and from the motion of the box, and walks downhill in steps of 4, 2 and 1 pixels: boxes
    jitter by more than a pixel, and a shift that is off by two lays every outline beside itself.
    """
    import cv2

    known: dict[tuple[int, int], float] = {}

    def misfit(shift: tuple[int, int]) -> float:
        if shift not in known:
            here, there = (
                tuple(slice(s.start, s.stop, _STRIDE) for s in slices) for slices in overlap(old.roi, new.roi, shift)
            )
            mask = (old.labels[there] > 0).astype(np.uint8)
            if mask.sum() * _STRIDE**2 < _MIN_SHARED * old.labels.size:
                known[shift] = np.inf
            else:
                now, then = np.ascontiguousarray(new.grey[here]), np.ascontiguousarray(old.grey[there])
                known[shift] = cv2.mean(cv2.absdiff(now, then), mask)[0]
        return known[shift]

    moved = np.rint(new.centre - old.centre).astype(int)
    best = min(((0, 0), (int(moved[0]), int(moved[1]))), key=misfit)
    for step in (4, 2, 1):
        for _ in range(4):
            around = [(best[0] + dx * step, best[1] + dy * step) for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1))]
            nearest = min(around, key=misfit)
            if misfit(nearest) >= misfit(best):
                break
            best = nearest
    return best if misfit(best) <= _MAX_FIT_LEVELS else None
