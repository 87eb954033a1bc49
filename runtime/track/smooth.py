"""Labels without flicker: a person's pixels keep their class until there is better evidence.

A pixel holds a class and a weight, the evidence for it. Each frame votes for its own class with the pixel score of that
part. A vote for the held class adds to the weight, up to a limit; a vote against it reduces the weight, and a heavier
one changes the class (a weighted one-pass majority vote, Boyer and Moore 1981). The held labels are moved by whole
pixels to where the person's picture fits best. Where it does not fit, at a moving limb or a turning person, the pixel
starts again, so nothing is smeared. Only the person's region changes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qanet.results import People, Person

Roi = tuple[int, int, int, int]  # x0 y0 x1 y1 pixels


Slices = tuple[slice, slice]


@dataclass
class Look:
    """A person in a frame: region, centre of the box, blurred grey picture and labels."""

    roi: Roi
    centre: NDArray[np.floating]  # x, y
    grey: NDArray[np.uint8]
    labels: NDArray[np.uint8]


def soft_grey(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Grey values averaged over 5x5 pixels, which reduces noise; (H, W) uint8."""
    import cv2

    return np.asarray(cv2.blur(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), (5, 5)), np.uint8)


def still(a: NDArray[np.uint8], b: NDArray[np.uint8], levels: int) -> NDArray[np.bool_]:
    """Where two grey pictures of the same shape differ by less than `levels`; (H, W) bool."""
    import cv2

    return np.asarray(cv2.absdiff(a, b) < levels)


def overlap(old: Roi, new: Roi, shift: tuple[int, int]) -> tuple[Slices, Slices]:
    """The slices of `new` and of `old` that share pixels when `old` is moved by `shift` (x, y)."""
    low = [max(new[k], old[k] + shift[k]) for k in (0, 1)]
    high = [max(low[k], min(new[k + 2], old[k + 2] + shift[k])) for k in (0, 1)]
    here = tuple(slice(low[k] - new[k], high[k] - new[k]) for k in (1, 0))
    there = tuple(slice(low[k] - old[k] - shift[k], high[k] - old[k] - shift[k]) for k in (1, 0))
    return (here[0], here[1]), (there[0], there[1])


def fit(old: Look, new: Look) -> tuple[int, int] | None:
    """The shift (x, y) in whole pixels from `old` to `new` at which the pictures agree best; None without a good fit.

    Starts from no motion and from the motion of the box, and descends in steps of 4, 2 and 1 pixels. The motion of the
    box alone is not precise enough: a shift that is off by two pixels doubles every outline.
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


_DECAY = 0.95  # of the weight, per frame
_LIMIT = 5.0  # of the weight: a new class wins after five confident frames
_SAME_LEVELS = 16  # of 255: a pixel that differs more shows another surface
_MEMORY_FRAMES = 5  # a person out of sight for longer starts again


@dataclass
class _Held:
    """Labels, weights and scores held for a person, in the region of the last frame."""

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
        """Smooth the labels of a result in place; people without a number do not change.

        Scores are those of this frame; a held part that this frame does not show keeps its last scores.
        """
        if self._image_hw != result.image_size:  # the held labels are in other pixels
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
    """Merge the held labels into labels and weights of a frame, in place."""
    evidence = held_weights * np.float32(_DECAY) * same_picture
    agree = labels == held
    stays = ~agree & (evidence > weights)
    np.copyto(weights, np.minimum(weights + evidence, np.float32(_LIMIT)), where=agree)
    np.copyto(weights, evidence - weights, where=stays)
    np.copyto(labels, held, where=stays)


def _keep_scores(person: Person, labels: NDArray[np.uint8], held: _Held) -> None:
    """Set the scores of exactly the parts that are present after the vote."""
    there = np.bincount(labels.ravel(), minlength=len(person.part_scores) + 1)[1:] > 0
    for name in ("part_scores", "part_quality"):
        now, before = getattr(person, name), getattr(held, name)
        setattr(person, name, np.where(there, np.where(now > 0, now, before), 0).astype(np.float32))


_STRIDE = 4  # between the pixels that the fit compares
_MAX_FIT_LEVELS = 20  # largest mean difference of a person's pixels after a good fit
_MIN_SHARED = 1 / 16  # of the region: least share of person pixels that both frames must have
