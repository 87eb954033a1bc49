"""What the detector learns from, and its batches: photographs drawn by how much is known of them.

A kind has its share of the draws, and within it a scene is drawn as often as the root of the number of its pictures: a
film of a thousand frames does not drown the photographs that each show something else.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.errors import QanetError
from qanet.train.data.loader import Loader
from qanet.train.detection.augment import Picture, training_image
from qanet.train.detection.photographs import KINDS, LABELLED, NOBODY, PARTIAL, UNLABELLED, Album, Photograph

MOST_BOXES = 96  # of an image; a mosaic of crowds has more, and what is beyond these is left out
PADDING = -2.0  # score of a row that is no box
SIDE_PX = 320  # of the square that is learnt from: what is learnt in it holds for the whole input, at less cost
CALM_FROM = 0.8  # share of the run after which there are no mosaics
_SHARES = {LABELLED: 0.58, PARTIAL: 0.03, UNLABELLED: 0.26, NOBODY: 0.13}  # of draws


class DetectionData:
    """Draws training images; every one comes from its random generator alone.

    Args:
        photographs: to learn from.
        length: images an epoch.
    """

    def __init__(self, photographs: Sequence[Photograph], length: int):
        if length < 1 or not photographs:
            raise QanetError("nothing to train on", expected="photographs, images", got=(len(photographs), length))
        self.album, self.length = Album(photographs), length
        self.names = [f"image {k}" for k in range(length)]
        sizes = Counter(p.scene for p in photographs)
        weights = np.array([sizes[p.scene] ** -0.5 for p in photographs])
        kinds = np.array([p.kind for p in photographs])
        for kind in KINDS:
            weights[kinds == kind] *= _SHARES[kind] / max(weights[kinds == kind].sum(), 1e-9)
        self._edges = np.cumsum(weights) / weights.sum()

    def __len__(self) -> int:
        return self.length

    def draw(self, side: int, rng: np.random.Generator, calm: bool = False) -> Picture:
        """An image (side, side, 3) uint8 BGR and its boxes (M, 5); `calm` as for `training_image`."""
        return training_image(lambda: self._photograph(rng), side, rng, calm)

    def _photograph(self, rng: np.random.Generator) -> Picture:
        return self.album[int(np.searchsorted(self._edges[:-1], rng.random(), side="right"))]


class DetectionLoader(Loader):
    """Batches whose labels are boxes (B, MOST_BOXES, 5) float32; rows of score PADDING are none."""

    data: Any  # DetectionData, or what draws as it does

    def _crop(self, index: int, epoch: int, slot: int) -> tuple[NDArray[np.uint8], NDArray[Any], str]:
        rng = np.random.default_rng((self.recipe.seed, epoch, slot, 1))
        calm = epoch >= CALM_FROM * self.recipe.epochs
        image, boxes = self.data.draw(min(SIDE_PX, *self.recipe.input_hw), rng, calm)
        rows = np.full((MOST_BOXES, 5), PADDING, np.float32)
        boxes = boxes[np.argsort(boxes[:, 4], kind="stable")][:MOST_BOXES]  # what is not known first
        rows[: len(boxes)] = boxes
        return image, rows, self.data.names[index]
