"""How much labels flicker: the share of pixels that change class where the picture stands still."""

import numpy as np
from numpy.typing import NDArray

from qanet.results import People
from qanet.runtime.track.smooth import Look, fit, overlap, soft_grey, still

_STILL_LEVELS = 8  # of 255: a pixel whose soft grey value changes less shows the same


class Flicker:
    """Adds frames up; `share` is the measure over all pairs of neighbours so far.

    Each numbered person is laid over the last frame's by the shift that fits best. A pixel counts where either frame
    has a part and the picture is the same, that is, where its grey value over 5x5 pixels differs by less than 8 of
    255. The same picture has one class, so each change is an error of one of the two.
    """

    def __init__(self) -> None:
        self._looks: dict[int, Look] = {}
        self._image_hw: tuple[int, int] | None = None
        self.still_px = self.changed_px = 0

    def add(self, result: People) -> None:
        """The next frame. One of another size begins anew."""
        before = self._looks if self._image_hw == result.image_size else {}
        self._looks, self._image_hw = {}, result.image_size
        for person in result:
            if person.track_id is None or person.labels.size == 0:
                continue
            x0, y0, x1, y1 = person.roi
            centre = (person.box[:2] + person.box[2:]) / 2
            look = Look(person.roi, centre, soft_grey(result.image[y0:y1, x0:x1]), person.labels.copy())
            self._looks[person.track_id] = look
            if (old := before.get(person.track_id)) is not None:
                self._compare(old, look)

    def _compare(self, old: Look, new: Look) -> None:
        shift = fit(old, new)
        if shift is None:
            return
        here, there = overlap(old.roi, new.roi, shift)
        now: NDArray[np.uint8] = new.labels[here]
        then: NDArray[np.uint8] = old.labels[there]
        counted = still(new.grey[here], old.grey[there], _STILL_LEVELS) & ((now > 0) | (then > 0))
        self.still_px += int(counted.sum())
        self.changed_px += int((counted & (now != then)).sum())

    @property
    def share(self) -> float:
        """In [0, 1]; 0 where nothing stood still."""
        return self.changed_px / self.still_px if self.still_px else 0.0
