"""Other surroundings of a person: photographs without people as backgrounds, and pieces of them in front."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qanet.datasets.decoding import decode_photo
from qanet.errors import QanetError
from qanet.images import IMAGE_SUFFIXES

_FEATHER_PX = 1.2  # standard deviation of the edge between a person and another background
_MOST_COVERED = 0.6  # share of the person; an object that covers more is not pasted


class Scenery:
    """Photographs without people, from folders and their subfolders.

    In a folder with COCO boxes of people (persons.json) these are the photographs without a box.

    Raises:
        QanetError: folders without photographs.
    """

    def __init__(self, folders: Sequence[Path]):
        self.files = sorted(path for folder in folders for path in _empty_photos(folder))
        if folders and not self.files:
            raise QanetError(f"no photographs in {folders[0]}", expected=", ".join(IMAGE_SUFFIXES), got="none")

    def view(self, hw: tuple[int, int], rng: np.random.Generator) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 BGR: a random part of a random photograph, mirrored with probability 0.5."""
        import cv2

        image = decode_photo(self.files[int(rng.integers(len(self.files)))])
        height, width = image.shape[:2]
        share = rng.uniform(0.35, 1.0)
        rows = max(8, int(share * min(height, width * hw[0] / hw[1])))
        columns = max(8, min(width, rows * hw[1] // hw[0]))
        top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
        part = image[top : top + rows, left : left + columns]
        return cv2.resize(part[:, ::-1] if rng.random() < 0.5 else part, hw[::-1], interpolation=cv2.INTER_LINEAR)


def _empty_photos(folder: Path) -> list[Path]:
    index = folder / "persons.json"
    if not index.is_file():
        return [path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES]
    document = json.loads(index.read_text())
    with_people = {annotation["image_id"] for annotation in document["annotations"]}
    return [folder / "images" / i["file_name"] for i in document["images"] if i["id"] not in with_people]


def put_behind(
    crop: NDArray[np.uint8], target: NDArray[np.uint8], view: NDArray[np.uint8], inside: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """The crop with the view as its background; void pixels count as the person.

    Args:
        crop, view: (H, W, 3) uint8.
        target: (H, W) uint8 labels, 0 for background.
        inside: (H, W) uint8, 0 outside the photograph, where the crop stays black.
    """
    import cv2

    person = cv2.GaussianBlur((target != 0).astype(np.float32), (0, 0), _FEATHER_PX)[..., None]
    mixed = crop * person + view * (1 - person)
    return np.where(inside[..., None] != 0, mixed + 0.5, crop).clip(0, 255).astype(np.uint8)


def put_before(
    crop: NDArray[np.uint8], target: NDArray[np.uint8], view: NDArray[np.uint8], rng: np.random.Generator
) -> None:
    """Paste a table's edge, a post or a round object with the view's pixels over the crop, in place, as background."""
    shape = _shape(crop.shape[:2], rng)
    mine = target != 0
    if mine[shape].sum() > _MOST_COVERED * mine.sum():
        return
    if rng.random() < 0.3:  # one colour, slightly shaded
        colour = rng.uniform(0, 255, 3)
        shade = np.linspace(-1, 1, crop.shape[0])[:, None, None] * rng.uniform(-40, 40)
        view = np.clip(np.broadcast_to(colour + shade, crop.shape), 0, 255).astype(np.uint8)
    crop[shape] = view[shape]
    target[shape] = 0


def _shape(hw: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.bool_]:
    import cv2

    height, width = hw
    mask = np.zeros(hw, np.uint8)
    kind = rng.choice(4, p=(0.4, 0.25, 0.2, 0.15))
    if kind == 0:  # from below, slanted
        left, right = height * (rng.uniform(0.45, 0.95) + rng.uniform(-0.1, 0.1, 2))
        corners = [(0, int(left)), (width, int(right)), (width, height), (0, height)]
    elif kind == 1:  # from one side
        inner = width * (rng.uniform(0.1, 0.4) + rng.uniform(-0.08, 0.08, 2))
        corners = [(0, 0), (int(inner[0]), 0), (int(inner[1]), height), (0, height)]
        if rng.random() < 0.5:
            corners = [(width - x, y) for x, y in corners]
    elif kind == 2:  # an ellipse
        centre = (int(rng.uniform(0.1, 0.9) * width), int(rng.uniform(0.3, 1.0) * height))
        axes = (int(rng.uniform(0.08, 0.3) * width), int(rng.uniform(0.06, 0.2) * height))
        cv2.ellipse(mask, centre, axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)
        return mask != 0
    else:  # a post or a rail across
        start, end = rng.uniform(0, 1, 2)
        thick = int(rng.uniform(0.03, 0.12) * width) + 1
        if rng.random() < 0.5:
            ends = (int(start * width), 0), (int((0.8 * start + 0.2 * end) * width), height)
        else:
            ends = (0, int(start * height)), (width, int((0.7 * start + 0.3 * end) * height))
        cv2.line(mask, *ends, 1, thick)
        return mask != 0
    cv2.fillPoly(mask, [np.array(corners, np.int32)], 1)
    return mask != 0
