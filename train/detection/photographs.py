"""Folders of photographs of people for the detector, and their boxes.

    <root>/labelled/SOURCE/persons.json, images/     all people have boxes (in COCO's form; crowds are ignored areas)
    <root>/partial/SOURCE/persons.json, images/      some people have boxes; the rest of the photograph is ignored
    <root>/unlabelled/SOURCE/images/                 no boxes; detections of teachers stand in (`teachers`)
    <root>/without_people/SOURCE/images/             no people

A box is a row x0 y0 x1 y1 score. The score is the confidence of its source, 1 by default. A score of IGNORED marks an
area that the loss leaves out.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from qanet.coco.annotations import read_people_boxes
from qanet.errors import QanetError
from qanet.images import IMAGE_SUFFIXES, read_image

Rows = NDArray[np.float32]
LABELLED, PARTIAL, UNLABELLED, WITHOUT_PEOPLE = KINDS = ("labelled", "partial", "unlabelled", "without_people")
IGNORED = -1.0  # score of an area that is neither a person nor background
_HELD_BACK = 10  # one of so many photographs with known people is held back for validation
_LONGEST_PX = 576  # longest side of a photograph in memory


@dataclass(frozen=True, eq=False)
class Photograph:
    """One photograph.

    Attributes:
        file: the image.
        kind: one of KINDS.
        source: name of its folder.
        scene: name shared by photographs that may look alike: that of the film, or the source.
        rows: (M, 5) x0 y0 x1 y1 score of its boxes, in pixels.
    """

    file: Path
    kind: str
    source: str
    scene: str
    rows: Rows

    @property
    def name(self) -> str:
        """Its name in the root folder: KIND/SOURCE/FILE."""
        return f"{self.kind}/{self.source}/{self.file.name}"

    @property
    def held_back(self) -> bool:
        """Whether it is for validation and not for training; depends on its name alone."""
        digest = hashlib.sha256(self.name.encode()).digest()
        return self.kind in (LABELLED, WITHOUT_PEOPLE) and digest[0] * 256 + digest[1] < 65536 // _HELD_BACK


def read_photographs(root: Path) -> list[Photograph]:
    """All photographs of a folder, in the order of their names.

    Raises:
        QanetError: no photographs, or a missing or broken file of labels.
    """
    found = []
    for kind in KINDS:
        for source in sorted(p for p in (root / kind).glob("*") if (p / "images").is_dir()):
            known, scenes = _labels(source / "persons.json") if kind in (LABELLED, PARTIAL) else ({}, {})
            for file in sorted(p for p in (source / "images").iterdir() if p.suffix.lower() in IMAGE_SUFFIXES):
                rows = np.array(known.get(file.name, []), np.float32).reshape(-1, 5)
                scene = f"{source.name}/{scenes.get(file.name, '')}"
                found.append(Photograph(file, kind, source.name, scene, rows))
    if not found:
        raise QanetError(
            f"no photographs of people in {root}",
            expected=f"folders {', '.join(KINDS)} of SOURCE/images",
            got="none",
            next_command="see docs/training.md, The person detector",
        )
    return found


def _labels(path: Path) -> tuple[dict[str, list[list[float]]], dict[str, str]]:
    """File name -> rows, and file name -> scene, of a file of labels."""
    photos = read_people_boxes(path)
    rows = {p.file_name: np.column_stack([p.boxes, np.where(p.crowds, IGNORED, p.scores)]).tolist() for p in photos}
    return rows, {p.file_name: _scene(p.source) for p in photos}


def _scene(origin: str) -> str:
    """The scene of an original file name: its letters, images/clip-0042.jpg -> clip-; digits alone are a scene."""
    stem = origin.split(";")[0].rsplit("/", 1)[-1].split(".")[0].removesuffix("_jpg").removesuffix("_png")
    letters = "".join(c for c in stem if not c.isdigit())
    return letters or stem


class Album:
    """Photographs in memory, decoded once; large ones are shrunk with their boxes."""

    def __init__(self, photographs: Sequence[Photograph], longest_px: int = _LONGEST_PX):
        self.photographs = list(photographs)
        self._longest_px, self._lock = longest_px, Lock()
        self._pixels: dict[int, tuple[NDArray[np.uint8], float]] = {}

    def __len__(self) -> int:
        return len(self.photographs)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], Rows]:
        """Pixels (H, W, 3) uint8 BGR and rows (M, 5); QanetError for a file that cannot be read."""
        with self._lock:
            known = self._pixels.get(index)
        if known is None:
            known = self._read(index)
            with self._lock:
                self._pixels[index] = known
        image, scale = known
        rows = self.photographs[index].rows.copy()
        rows[:, :4] *= scale
        if self.photographs[index].kind == PARTIAL:
            rows = np.concatenate([rows, whole(image)])
        return image, rows

    def _read(self, index: int) -> tuple[NDArray[np.uint8], float]:
        import cv2

        image = read_image(self.photographs[index].file)
        scale = self._longest_px / max(image.shape[:2])
        if scale >= 1:
            return image, 1.0
        return np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8), scale


def whole(image: NDArray[np.uint8]) -> Rows:
    """The row (1, 5) that ignores a whole photograph; cells that are assigned to a box still count."""
    return np.array([[0, 0, image.shape[1], image.shape[0], IGNORED]], np.float32)
