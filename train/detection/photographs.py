"""A folder of photographs of people, source by source, and what is known of each: boxes, and where nothing is known.

    <root>/labelled/SOURCE/persons.json, images/     every person boxed (COCO's form; crowds are ignored)
    <root>/partial/SOURCE/persons.json, images/      some people boxed: nothing is known of the rest of the picture
    <root>/unlabelled/SOURCE/images/                 no boxes: two teachers say what they see (`teachers`)
    <root>/without_people/SOURCE/images/             nobody

A box is a row x0 y0 x1 y1 score: how sure who labelled it is, 1 where nothing is said. A score of IGNORED makes its
area one of which nothing is known: the loss leaves it out.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from qanet.errors import QanetError
from qanet.images import IMAGE_SUFFIXES, read_image

Rows = NDArray[np.float32]
LABELLED, PARTIAL, UNLABELLED, NOBODY = KINDS = ("labelled", "partial", "unlabelled", "without_people")
IGNORED = -1.0  # score of a box that is neither a person nor background
_HELD_BACK = 10  # every so many pictures whose people are known one is kept to choose a state by
_LONGEST_PX = 576  # of a picture in memory


@dataclass(frozen=True, eq=False)
class Photograph:
    """One picture.

    Attributes:
        kind: one of KINDS.
        source: the folder it comes from.
        scene: what it shares with others that may look like it: the film it is a frame of, else its source.
        rows: (M, 5) boxes in its pixels.
    """

    file: Path
    kind: str
    source: str
    scene: str
    rows: Rows

    @property
    def name(self) -> str:
        """What it is called in its folder."""
        return f"{self.kind}/{self.source}/{self.file.name}"

    @property
    def held_back(self) -> bool:
        """Whether it is one of those that are not learnt from; by its name alone."""
        digest = hashlib.sha256(self.name.encode()).digest()
        return self.kind in (LABELLED, NOBODY) and digest[0] * 256 + digest[1] < 65536 // _HELD_BACK


def read_photographs(root: Path) -> list[Photograph]:
    """All photographs of a folder, in the order of their names.

    Raises:
        QanetError: none at all, or a file of labels that is none.
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
    """Rows and scene of every picture of a file of labels, by its name."""
    try:
        document = json.loads(path.read_text())
        names = {image["id"]: str(image["file_name"]) for image in document["images"]}
        scenes = {str(image["file_name"]): _scene(str(image.get("source", ""))) for image in document["images"]}
        rows: dict[str, list[list[float]]] = {name: [] for name in names.values()}
        for entry in document["annotations"]:
            x, y, width, height = (float(v) for v in entry["bbox"])
            score = IGNORED if entry.get("iscrowd") else float(entry.get("score", 1.0))
            rows[names[entry["image_id"]]].append([x, y, x + width, y + height, score])
    except OSError as error:
        raise QanetError(f"no {path.name} in {path.parent}", got=error.strerror) from error
    except (ValueError, KeyError, TypeError) as error:
        raise QanetError(
            f"{path} is not a file of labels", expected="COCO images and annotations", got=error
        ) from error
    return rows, scenes


def _scene(origin: str) -> str:
    """The letters of a picture's first name, images/clip-0042.jpg -> clip-; a name of digits is a scene of its own."""
    stem = origin.split(";")[0].rsplit("/", 1)[-1].split(".")[0].removesuffix("_jpg").removesuffix("_png")
    letters = "".join(c for c in stem if not c.isdigit())
    return letters or stem


class Album:
    """Photographs in memory, decoded once; a larger one is shrunk, its boxes with it."""

    def __init__(self, photographs: Sequence[Photograph], longest_px: int = _LONGEST_PX):
        self.photographs = list(photographs)
        self._longest_px, self._lock = longest_px, Lock()
        self._pixels: dict[int, tuple[NDArray[np.uint8], float]] = {}

    def __len__(self) -> int:
        return len(self.photographs)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], Rows]:
        """Pixels (H, W, 3) uint8 BGR and boxes (M, 5); QanetError for a file that cannot be read."""
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
    """The row (1, 5) that leaves a whole picture out of the loss, but for the cells that answer for a box."""
    return np.array([[0, 0, image.shape[1], image.shape[0], IGNORED]], np.float32)
