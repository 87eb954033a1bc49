"""Whom and where: people cut out of CCP's photographs, and the photographs' own backgrounds without them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qanet.datasets import PhotoFolder, person_box
from qanet.errors import QanetError
from qanet.labels import CCP59, LabelSet
from qanet.train.data.synthetic.classes import translate

_MARGIN_PX = 3  # of the photograph around the person, for the feathered edge
_STRIP_PX = 30  # least street beside a person that can be mirrored
_BLENDED = 0.4  # of the hole's width: where the mirrored left turns into the mirrored right
_GROWTH_PX = 9  # of the hole beyond the mask: hair, straps and shadows at the contour


@dataclass(frozen=True, eq=False)
class Cutout:
    """A person: image (h, w, 3) uint8 BGR, labels (h, w) uint8 with void, mask (h, w) bool, all with a margin."""

    name: str
    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    mask: NDArray[np.bool_]


class People:
    """The people and backgrounds of one split of CCP, and of no other."""

    def __init__(self, root: Path, split: str, labels: LabelSet):
        self.source = source_split(root, split)
        self.labels = labels
        self._photos = PhotoFolder(root, CCP59, self.source)

    def __len__(self) -> int:
        return len(self._photos)

    def name(self, index: int) -> str:
        """The photograph of that index."""
        return self._photos.names[index]

    def cutout(self, index: int) -> Cutout | None:
        """The person of that index; None where the label map shows nobody."""
        sample = self._photos[index]
        raw = self._photos.raw_labels(index)
        if not raw.any():
            return None
        x0, y0, x1, y1 = person_box(raw).astype(int)
        person = translate(raw[y0:y1, x0:x1], self.labels)
        top, left = max(y0 - _MARGIN_PX, 0), max(x0 - _MARGIN_PX, 0)
        window = (slice(top, y1 + _MARGIN_PX), slice(left, x1 + _MARGIN_PX))
        labels = np.zeros(raw.shape, np.uint8)
        labels[y0:y1, x0:x1] = person
        return Cutout(sample.name, sample.image[window], labels[window], raw[window] != 0)

    def background(self, index: int) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 BGR: a photograph without its person.

        The hole is filled with the street at its left and right, mirrored at the hole's box and blended in the middle;
        the edge is blended over the hole's margin. People beyond the annotated one stay: CCP does not mark them.
        """
        import cv2

        image, raw = self._photos[index].image, self._photos.raw_labels(index)
        if not raw.any():
            return image
        hole = cv2.dilate((raw != 0).astype(np.uint8), _disc(2 * _GROWTH_PX + 1))
        alpha = cv2.GaussianBlur(hole.astype(np.float32), (0, 0), _GROWTH_PX / 3)[..., None]
        x0, _, x1, _ = person_box(hole).astype(int)
        filled = mirrored_street(image, int(x0), int(x1))
        return np.clip(image * (1 - alpha) + filled * alpha + 0.5, 0, 255).astype(np.uint8)


def mirrored_street(image: NDArray[np.uint8], x0: int, x1: int) -> NDArray[np.float32]:
    """(H, W, 3) float32: columns x0..x1 replaced by what is left of x0 and right of x1, mirrored there.

    A strip narrower than _STRIP_PX gives nothing; where both are, the photograph is blurred beyond recognition.
    """
    import cv2

    width = image.shape[1]
    columns = np.arange(width)
    left, right = x0, width - x1  # the strips' widths
    if max(left, right) < _STRIP_PX:
        return np.asarray(cv2.GaussianBlur(image, (0, 0), width / 8), np.float32)
    from_left = image[:, np.where(columns < x0, columns, x0 - 1 - _wave(columns - x0, left))]
    from_right = image[:, np.where(columns >= x1, columns, x1 + _wave(x1 - 1 - columns, right))]
    if min(left, right) < _STRIP_PX:
        return (from_left if left > right else from_right).astype(np.float32)
    middle = (columns - (x0 + x1) / 2) / max((x1 - x0) * _BLENDED, 1)
    share = np.clip(middle + 0.5, 0, 1)[None, :, None].astype(np.float32)
    return from_left * (1 - share) + from_right * share


def _wave(distance: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """0, 1, ..., length - 1, length - 1, ..., 1, 0, 0, 1, ...: a strip mirrored as often as needed."""
    phase = np.maximum(distance, 0) % max(2 * length, 1)
    return np.clip(np.minimum(phase, 2 * length - 1 - phase), 0, max(length - 1, 0))


def source_split(root: Path, split: str) -> str:
    """CCP's split that a split of scenes is made of: train of train.txt, val and test of val.txt.

    Raises:
        QanetError: a list is missing, or somebody is in both.
    """
    lists = {}
    for name in ("train", "val"):
        path = root / f"{name}.txt"
        if not path.is_file():
            raise QanetError(
                f"no {path.name} in {root}",
                expected="train.txt and val.txt, so that nobody is in both parts",
                got="missing",
            )
        lists[name] = set(path.read_text().split())
    both = sorted(lists["train"] & lists["val"])
    if both:
        raise QanetError(f"{len(both)} people are in train.txt and in val.txt", expected="none", got=both[:4])
    return "train" if split == "train" else "val"


def _disc(diameter: int) -> NDArray[np.uint8]:
    import cv2

    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (diameter, diameter)), np.uint8)
