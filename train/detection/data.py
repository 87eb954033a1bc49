"""Training images of the detector, and their batches.

A training image is a part of a photograph at a random scale and aspect, or a mosaic of up to nine parts, degraded as
by a camera. Each kind of photograph has its share of the draws. Within a kind a scene is drawn in proportion to the
square root of the number of its photographs, so that a film of a thousand frames does not drown single photographs.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.errors import QanetError
from qanet.train.data.loader import Loader
from qanet.train.detection.photographs import (
    IGNORED,
    KINDS,
    LABELLED,
    PARTIAL,
    UNLABELLED,
    WITHOUT_PEOPLE,
    Album,
    Photograph,
    Rows,
)

Picture = tuple[NDArray[np.uint8], Rows]  # (H, W, 3) BGR and rows (M, 5)

_GREY = 114  # value of pixels outside the photograph, as in the runtime's letterbox
_USUAL_HW = 320, 427  # a photograph fitted to this size has scale 1
_SCALES, _MEDIAN_SCALE, _SCALE_SPREAD = (0.2, 2.0), 1.0, 0.45  # log-normal
_MOSAICS = {1: 0.35, 2: 0.35, 3: 0.3}  # photographs per side of a mosaic -> probability
_MOSAIC_SCALE = 1.15  # a part of a mosaic of n per side has the scale of a single photograph times this / n
_MOSAIC_JITTER = 0.2  # greatest shift of a cut, as a share of a part's side
_MOST_ENLARGED = 2.0
_ON_PERSON = 0.7  # share of parts with a person near the middle
_ASPECT_SPREAD = 0.12  # standard deviation of log(width / height)
_SQUARE_ASPECTS = (1.0, 4 / 3, 4 / 3, 16 / 9, 3 / 4)  # square images of these collections were squeezed
_HARD, _HIDDEN = 0.3, 0.08  # shares of a box inside the image below which it is ignored, and dropped
_SMALLEST_PX = 6.0


def training_image(draw: Callable[[], Picture], side: int, rng: np.random.Generator, calm: bool = False) -> Picture:
    """An image (side, side, 3) and its rows: a part of one photograph, or a mosaic, degraded.

    Args:
        draw: returns another photograph at every call.
        calm: no mosaics, as at the end of a run.
    """
    count = 1 if calm else int(rng.choice(list(_MOSAICS), p=list(_MOSAICS.values())))
    image, rows = mosaic(draw, side, count, rng) if count > 1 else part(*draw(), (side, side), 1.0, rng)
    return degraded(image, rng), rows


def mosaic(draw: Callable[[], Picture], side: int, count: int, rng: np.random.Generator) -> Picture:
    """Parts of count x count photographs in one image, at smaller scales: distant people, and more variety per step."""
    canvas = np.empty((side, side, 3), np.uint8)
    steps = np.arange(1, count)[:, None] + _MOSAIC_JITTER * rng.uniform(-1, 1, (count - 1, 2))
    ys, xs = ([0, *np.round(cuts * side / count).astype(int).tolist(), side] for cuts in steps.T)
    rows = []
    for top, bottom in itertools.pairwise(ys):
        for left, right in itertools.pairwise(xs):
            window, inside = part(*draw(), (bottom - top, right - left), _MOSAIC_SCALE / count, rng)
            canvas[top:bottom, left:right] = window
            rows.append(inside + np.array([left, top, left, top, 0], np.float32))
    return canvas, np.concatenate(rows)


def part(image: NDArray[np.uint8], rows: Rows, hw: tuple[int, int], scale: float, rng: np.random.Generator) -> Picture:
    """A window (H, W) at a random place of a photograph at a random scale and aspect, mirrored with probability 0.5.

    Args:
        scale: factor on the random scale.
    """
    import cv2

    factor = np.exp(np.log(_MEDIAN_SCALE) + _SCALE_SPREAD * rng.standard_normal())
    factor = float(np.clip(factor, *_SCALES)) * scale * min(a / b for a, b in zip(_USUAL_HW, image.shape))
    square = image.shape[0] == image.shape[1]
    aspect = _SQUARE_ASPECTS[int(rng.integers(len(_SQUARE_ASPECTS)))] if square else 1.0
    aspect *= np.exp(_ASPECT_SPREAD * rng.standard_normal())
    xy = np.minimum(factor * np.array([aspect**0.5, aspect**-0.5]), _MOST_ENLARGED)  # x, y
    offset = _place(rows, xy, image.shape[1::-1], hw, rng)
    if xy.min() < 0.6:  # warpAffine has no area averaging
        size = np.maximum(np.round(xy * image.shape[1::-1]), 1).astype(int)
        shrunk = cv2.resize(image, (int(size[0]), int(size[1])), interpolation=cv2.INTER_AREA)
        matrix = np.array([[1.0, 0, offset[0]], [0, 1.0, offset[1]]])
    else:
        shrunk, matrix = image, np.array([[xy[0], 0, offset[0]], [0, xy[1], offset[1]]])
    window = cv2.warpAffine(shrunk, matrix, (hw[1], hw[0]), flags=cv2.INTER_LINEAR, borderValue=(_GREY,) * 3)
    moved = rows.copy()
    moved[:, :4] = rows[:, :4] * np.tile(xy, 2) + np.tile(offset, 2)
    if rng.random() < 0.5:
        window = window[:, ::-1]
        moved[:, [0, 2]] = hw[1] - moved[:, [2, 0]]
    return np.ascontiguousarray(window, np.uint8), clipped(moved, hw)


def _place(
    rows: Rows, xy: NDArray[np.float64], size: tuple[int, ...], hw: tuple[int, int], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Position x, y of the scaled photograph's corner in the window: with a person in view, or at random."""
    people = rows[rows[:, 4] > 0]
    if len(people) and rng.random() < _ON_PERSON:
        box = people[rng.integers(len(people)), :4].astype(np.float64)
        seen = (box[:2] + box[2:]) / 2
    else:
        seen = rng.random(2) * size[:2]
    window = np.array([hw[1], hw[0]])
    offset = rng.uniform(0.15, 0.85, 2) * window - xy * seen
    free = window - xy * size[:2]  # no grey on both sides where the photograph is large enough
    return np.clip(offset, np.minimum(free, 0), np.maximum(free, 0))


def clipped(rows: Rows, hw: tuple[int, int]) -> Rows:
    """Rows (M, 5) clipped to a window.

    Boxes mostly outside, or tiny, become ignored; boxes almost outside are dropped.
    """
    inside = rows.copy()
    inside[:, :4] = np.clip(rows[:, :4], 0, np.array([hw[1], hw[0]] * 2, np.float32))
    sides, before = inside[:, 2:4] - inside[:, :2], rows[:, 2:4] - rows[:, :2]
    share = sides.prod(1) / np.maximum(before.prod(1), 1e-6)
    inside[(share < _HARD) | (sides.min(1, initial=np.inf) < _SMALLEST_PX), 4] = IGNORED
    kept = ((share >= _HIDDEN) | (rows[:, 4] < 0)) & (sides > 1).all(1)
    return np.asarray(inside[kept], np.float32)


def degraded(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """The faults of cameras: exposure, contrast, colour cast, saturation; at times grey, blur, noise, JPEG."""
    import cv2

    gamma, contrast = np.exp(rng.normal(0, 0.25)), np.exp(rng.normal(0, 0.15))
    gains = np.exp(rng.normal(0, 0.15) + rng.normal(0, 0.06, 3))  # B, G, R
    steps = (np.arange(256) / 255.0) ** gamma
    curves = ((steps[:, None] - 0.45) * contrast + 0.45) * gains * 255
    image = np.asarray(cv2.LUT(image, np.clip(curves, 0, 255).astype(np.uint8)[None]), np.uint8)
    saturation = 0.0 if rng.random() < 0.06 else float(np.exp(rng.normal(0, 0.25)))
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    image = np.asarray(cv2.addWeighted(image, saturation, grey, 1 - saturation, 0), np.uint8)
    if rng.random() < 0.1:
        sigma = rng.uniform(0.4, 2.0, 2) * (rng.random(2) < 0.7) + 0.01  # one axis alone: motion
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), sigma[0], sigmaY=sigma[1]), np.uint8)
    if rng.random() < 0.08:
        noise = rng.normal(0, rng.uniform(2, 14), image.shape[:2])[..., None]
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    if rng.random() < 0.2:
        _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(20, 80))])
        image = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    return image


MOST_BOXES = 96  # per image; further boxes of a mosaic of crowds are dropped
PADDING = -2.0  # score of a row without a box
SIDE_PX = 320  # of the square training image, which costs less than the whole input
CALM_FROM = 0.8  # share of the epochs after which there are no mosaics
_SHARES = {LABELLED: 0.58, PARTIAL: 0.03, UNLABELLED: 0.26, WITHOUT_PEOPLE: 0.13}  # of the draws


class DetectionData:
    """Draws training images; an image depends on its random generator alone.

    Args:
        photographs: the training photographs.
        length: images per epoch.
    Raises:
        QanetError: no photographs or no images.
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
        """An image (side, side, 3) uint8 BGR and its rows (M, 5); `calm` as for `training_image`."""
        return training_image(lambda: self._photograph(rng), side, rng, calm)

    def _photograph(self, rng: np.random.Generator) -> Picture:
        return self.album[int(np.searchsorted(self._edges[:-1], rng.random(), side="right"))]


class DetectionLoader(Loader):
    """Batches whose labels are rows (B, MOST_BOXES, 5) float32, filled up with rows of score PADDING."""

    data: Any  # DetectionData, or an object with the same `draw`

    def _crop(self, index: int, epoch: int, slot: int) -> tuple[NDArray[np.uint8], NDArray[Any], str]:
        rng = np.random.default_rng((self.recipe.seed, epoch, slot, 1))
        calm = epoch >= CALM_FROM * self.recipe.epochs
        image, boxes = self.data.draw(min(SIDE_PX, *self.recipe.input_hw), rng, calm)
        rows = np.full((MOST_BOXES, 5), PADDING, np.float32)
        boxes = boxes[np.argsort(boxes[:, 4], kind="stable")][:MOST_BOXES]  # ignored areas first
        rows[: len(boxes)] = boxes
        return image, rows, self.data.names[index]
