"""People to paste into scenes: cut out of CCP's photographs, kept small, resized, turned and cut anew each time."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qanet.datasets import PhotoFolder
from qanet.labels import CCP59

_KEPT_HEIGHT_PX = 400  # taller people are shrunk when they are read: no scene shows them larger by much
_TURN_STD_DEG, _TURNED = 12.0, 0.4  # of people that do not stand straight
_LYING = 0.1  # probability of a turn by any angle
_CUT = 0.25  # probability of a person of whom only an upper part shows, as behind a car or a desk
Person = NDArray[np.uint8]  # (h, w, 4): BGR and a mask of 0 or 255


class CutPeople:
    """The people of one split of CCP as BGRA pictures; read when first asked for and kept."""

    def __init__(self, root: Path, split: str):
        self._photos = PhotoFolder(root, CCP59, split)
        self._kept: dict[int, Person | None] = {}

    def __len__(self) -> int:
        return len(self._photos)

    def person(self, index: int) -> Person | None:
        """The person of a photograph, cut to the mask; None where nobody is marked."""
        if index not in self._kept:
            self._kept[index] = self._read(index)
        return self._kept[index]

    def _read(self, index: int) -> Person | None:
        image, mask = self._photos[index].image, self._photos.raw_labels(index) != 0
        if not mask.any():
            return None
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        window = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        person = np.dstack([image[window], mask[window].astype(np.uint8) * 255])
        scale = min(1.0, _KEPT_HEIGHT_PX / person.shape[0])
        return resized(person, scale)


def resized(person: Person, scale: float) -> Person:
    """At another size, at least 2x2 pixels."""
    import cv2

    wh = (max(round(person.shape[1] * scale), 2), max(round(person.shape[0] * scale), 2))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(person, wh, interpolation=how), np.uint8)


def varied(person: Person, height_px: float, rng: np.random.Generator) -> Person:
    """A person as tall as asked (before turning and cutting), mirrored, turned or cut as chance will have it."""
    person = resized(person, height_px / person.shape[0])
    if rng.random() < 0.5:
        person = np.ascontiguousarray(person[:, ::-1])
    if rng.random() < _LYING:
        person = turned(person, rng.uniform(-180, 180))
    elif rng.random() < _TURNED:
        person = turned(person, float(np.clip(rng.normal(0, _TURN_STD_DEG), -45, 45)))
    if rng.random() < _CUT:
        person = person[: max(int(person.shape[0] * rng.uniform(0.35, 0.9)), 2)]
    return person


def turned(person: Person, angle_deg: float) -> Person:
    """Rotated about its centre, the canvas grown to hold it all."""
    import cv2

    height, width = person.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle_deg, 1.0)
    cos, sin = abs(matrix[0, 0]), abs(matrix[0, 1])
    wh = (int(height * sin + width * cos) + 1, int(height * cos + width * sin) + 1)
    matrix[:, 2] += (wh[0] / 2 - width / 2, wh[1] / 2 - height / 2)
    return np.asarray(cv2.warpAffine(person, matrix, wh, flags=cv2.INTER_LINEAR), np.uint8)
