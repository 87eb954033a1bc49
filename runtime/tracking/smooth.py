"""Labels that do not flicker: each person's pixels keep their class until better evidence comes.

A pixel holds a class and a weight, the evidence for it. Each frame votes for its own class with that part's pixel
score: for the class held, the weight grows up to a limit; against it, the weight shrinks, and the class changes when
the vote is heavier (a majority vote in one pass, Boyer and Moore 1981, with weights). The held labels move along with
the track, by whole pixels, to where the person's own picture fits best; where it fits no more, at a limb that moves or
a person who turns, the pixel starts anew, so that nothing is smeared. Only the person's region is touched.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qanet.results import People, Person
from qanet.runtime.tracking.align import Look, fit, overlap, soft_grey, still

_DECAY = 0.95  # of the weight, a frame
_LIMIT = 5.0  # of the weight: a new class is believed after five confident frames
_SAME_LEVELS = 16  # of 255: a pixel that differs more shows something else
_MEMORY_FRAMES = 5  # a person out of sight for longer starts anew


@dataclass
class _Held:
    """What is known of a person's pixels, on the region of the last frame."""

    look: Look
    weights: NDArray[np.float32]
    part_scores: NDArray[np.float32]
    part_quality: NDArray[np.float32]
    frame: int


class LabelSmoother:
    """Smooths the labels of tracked people, frame by frame."""

    def __init__(self) -> None:
        self._held: dict[int, _Held] = {}
        self._frame = 0
        self._image_hw: tuple[int, int] | None = None

    def __call__(self, result: People) -> People:
        """The result with smoothed labels, in place; people without a number are left alone.

        The scores stay those of this frame; a part that is held although this frame does not see it keeps its last.
        """
        if self._image_hw != result.image_size:  # what was held lies in other pixels
            self._held.clear()
            self._image_hw = result.image_size
        tracked = [p for p in result if p.track_id is not None and p.labels.size]
        for person in tracked:
            self._smooth(person, result.image)
        self._frame += 1
        self._held = {k: held for k, held in self._held.items() if self._frame - held.frame <= _MEMORY_FRAMES}
        return result

    def _smooth(self, person: Person, image: NDArray[np.uint8]) -> None:
        assert person.track_id is not None
        x0, y0, x1, y1 = person.roi
        votes = np.concatenate([[person.pixel_score], person.part_scores]).astype(np.float32)
        labels, weights = person.labels.copy(), votes[person.labels]
        centre = (person.box[:2] + person.box[2:]) / 2
        look = Look(person.roi, centre, soft_grey(image[y0:y1, x0:x1]), labels)
        held = self._held.get(person.track_id)
        if held is not None and (shift := fit(held.look, look)) is not None:
            here, there = overlap(held.look.roi, look.roi, shift)
            same = still(look.grey[here], held.look.grey[there], _SAME_LEVELS)
            _vote(labels[here], weights[here], held.look.labels[there], held.weights[there], same)
            _keep_scores(person, labels, held)
        person.labels = labels
        self._held[person.track_id] = _Held(look, weights, person.part_scores, person.part_quality, self._frame)


def _vote(
    labels: NDArray[np.uint8],
    weights: NDArray[np.float32],
    held: NDArray[np.uint8],
    held_weights: NDArray[np.float32],
    same_picture: NDArray[np.bool_],
) -> None:
    """Merge what is held into a frame's labels and weights, in place."""
    evidence = held_weights * np.float32(_DECAY) * same_picture
    agree = labels == held
    stays = ~agree & (evidence > weights)
    np.copyto(weights, np.minimum(weights + evidence, np.float32(_LIMIT)), where=agree)
    np.copyto(weights, evidence - weights, where=stays)
    np.copyto(labels, held, where=stays)


def _keep_scores(person: Person, labels: NDArray[np.uint8], held: _Held) -> None:
    """Scores of exactly the parts that are there after the vote."""
    there = np.bincount(labels.ravel(), minlength=len(person.part_scores) + 1)[1:] > 0
    for name in ("part_scores", "part_quality"):
        now, before = getattr(person, name), getattr(held, name)
        setattr(person, name, np.where(there, np.where(now > 0, now, before), 0).astype(np.float32))
