"""What the detector learns from, and its batches: scenes, labelled images and photographs without people, mixed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.errors import QanetError
from qanet.images import read_image
from qanet.train.data.augment import jitter_colours
from qanet.train.data.loader import Loader
from qanet.train.detection.frames import LabelledImages
from qanet.train.detection.scenes.compose import compose, part_of, view_of
from qanet.train.detection.scenes.decoys import decoy
from qanet.train.detection.scenes.people import CutPeople, Person

MOST_BOXES = 32  # of an image; a scene has seven people, and what a teacher saw beyond these is left out
PADDING = -2.0  # score of a row that is no box
_WITH_DECOYS = 0.7  # share of scenes with decoys among the people
_NOBODY = 0.08  # share of images that are photographs without people and nothing else
_SUFFIXES = (".jpg", ".jpeg", ".png")
_GREYSCALE, _JPEG = 0.06, 0.3  # probabilities


class DetectionData:
    """Draws training images; every one comes from its random generator alone.

    Args:
        people: CCP's folder, for cut-outs.
        backgrounds: folder of photographs without people (its folders too).
        labelled: folders of labelled images, each drawn from as often as any other.
        length: images an epoch.
        scenes: share of images that are scenes of pasted people.
    """

    def __init__(
        self, people: Path, backgrounds: Path, labelled: Sequence[Path], length: int, scenes: float,
        split: str = "train",
    ):  # fmt: skip
        if length < 1 or not 0 <= scenes <= 1:
            raise QanetError("bad training data", expected="length of 1 or more, scenes in 0..1", got=(length, scenes))
        self.people = CutPeople(people, split)
        self.files = sorted(p for p in backgrounds.rglob("*") if p.suffix.lower() in _SUFFIXES)
        if not self.files:
            raise QanetError(f"no photographs in {backgrounds}", expected=f"{', '.join(_SUFFIXES)}", got="none")
        self.labelled = [LabelledImages(folder, split) for folder in labelled]
        self.length, self.scenes = length, scenes
        self.names = [f"image {k}" for k in range(length)]

    def __len__(self) -> int:
        return self.length

    def draw(
        self, hw: tuple[int, int], colour_jitter: float, rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """An image (H, W, 3) uint8 BGR and its boxes (M, 5)."""
        kind = rng.random()
        if kind < _NOBODY:
            image, boxes = view_of(self._background(rng), hw, rng), np.zeros((0, 5), np.float32)
        elif kind < _NOBODY + self.scenes or not self.labelled:
            image, boxes = self.scene(hw, rng)
        else:
            images = self.labelled[int(rng.integers(len(self.labelled)))]
            index = int(rng.integers(len(images)))
            image, boxes = part_of(images.image(index), images.boxes[index], hw, rng)
        return degraded(jitter_colours(image, colour_jitter, rng), rng), boxes

    def scene(self, hw: tuple[int, int], rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """People on a photograph, more often than not among decoys of another photograph's texture."""
        other = self._background(rng) if rng.random() < _WITH_DECOYS else None

        def draw() -> Person:
            return self._person(rng)

        def lure(height_px: float) -> Person:
            assert other is not None
            return decoy(other, draw, height_px, rng)

        return compose(self._background(rng), hw, draw, rng, lure if other is not None else None)

    def _background(self, rng: np.random.Generator) -> NDArray[np.uint8]:
        return read_image(self.files[int(rng.integers(len(self.files)))])

    def _person(self, rng: np.random.Generator) -> Person:
        while True:
            person = self.people.person(int(rng.integers(len(self.people))))
            if person is not None:
                return person


def degraded(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """What cameras do: now and then no colour, or the blocks of a strong compression."""
    import cv2

    if rng.random() < _GREYSCALE:
        image = np.asarray(cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR), np.uint8)
    if rng.random() < _JPEG:
        _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(30, 90))])
        image = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    return image


class DetectionLoader(Loader):
    """Batches whose labels are boxes (B, MOST_BOXES, 5) float32; rows of score PADDING are none."""

    data: Any  # DetectionData, or what draws as it does

    def _crop(self, index: int, epoch: int, slot: int) -> tuple[NDArray[np.uint8], NDArray[Any], str]:
        rng = np.random.default_rng((self.recipe.seed, epoch, slot, 1))
        side = min(self.recipe.input_hw)  # what is learnt in a square holds for the whole input, at less cost
        image, boxes = self.data.draw((side, side), self.recipe.colour_jitter, rng)
        rows = np.full((MOST_BOXES, 5), PADDING, np.float32)
        rows[: len(boxes)] = boxes[:MOST_BOXES]
        return image, rows, self.data.names[index]
