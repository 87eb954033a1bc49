"""Scenes with exact boxes: people pasted on a photograph at all scales, before one another and over the border."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from qanet.train.detection.scenes.people import Person, varied
from qanet.train.detection.targets import IGNORED

_PEOPLE, _DECOYS = (0, 7), (0, 4)  # of a scene, both ends included
_LEAST_HEIGHT_PX = 22.0
_TALLEST = 1.15  # of the scene's height
_CROWD = 0.3  # probability of a scene whose people are all about as tall
_HARD, _HIDDEN = 0.3, 0.08  # seen shares under which a person is not asked for, and under which there is none
_SMALLEST_PX = 6.0
_MOST_ENLARGED = 1.25  # what is small in a labelled image is not blown up by more
_GREY = 114  # of pixels outside the photograph, as in the runtime's letterbox


def compose(
    background: NDArray[np.uint8], hw: tuple[int, int], draw: Callable[[], Person], rng: np.random.Generator,
    decoy: Callable[[float], Person] | None = None,
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:  # fmt: skip
    """A scene (H, W, 3) uint8 BGR and its boxes (M, 5) x0 y0 x1 y1 score: 1, or IGNORED for people hardly seen.

    Boxes are of the pixels that are seen, as a detector's are. Decoys are pasted among the people and have no box.

    Args:
        background: a photograph of any size without people.
        draw: gives another person at every call.
        decoy: gives another decoy for a height in pixels at every call; None: a scene without.
    """
    canvas = view_of(background, hw, rng)
    owner = np.zeros(hw, np.int32)
    totals: list[int] = []
    tallest = _TALLEST * hw[0]
    usual = _log_uniform(_LEAST_HEIGHT_PX, tallest, rng)
    crowd = rng.random() < _CROWD
    counts = [int(rng.integers(low, high + 1)) for low, high in (_PEOPLE, _DECOYS)]
    heights = [
        (usual * rng.uniform(0.85, 1.2) if crowd else _log_uniform(_LEAST_HEIGHT_PX, tallest, rng), is_person)
        for is_person, count in ((True, counts[0]), (False, counts[1] if decoy else 0))
        for _ in range(count)
    ]
    for height, is_person in sorted(heights):  # the nearer, the taller: far ones first
        cutout = draw() if is_person or decoy is None else decoy(height)
        person = varied(cutout, height, rng)
        if is_person:
            totals.append(int(np.count_nonzero(person[..., 3] > 127)))
        x = int(rng.uniform(-0.4 * person.shape[1], hw[1] - 0.6 * person.shape[1]))
        y = int(rng.uniform(-0.25 * person.shape[0], max(hw[0] - 0.55 * person.shape[0], 1)))
        _paste(canvas, owner, person, x, y, len(totals) if is_person else 0, rng)
    return canvas, seen_boxes(owner, totals)


def view_of(image: NDArray[np.uint8], hw: tuple[int, int], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A random part of an image, mirrored or not, filling (H, W)."""
    import cv2

    least = max(hw[0] / image.shape[0], hw[1] / image.shape[1])
    scale = least * rng.uniform(1.0, 2.0) if rng.random() < 0.7 else least
    height, width = min(round(hw[0] / scale), image.shape[0]), min(round(hw[1] / scale), image.shape[1])
    y, x = (int(rng.integers(0, size - part + 1)) for size, part in zip(image.shape, (height, width)))
    part = image[y : y + height, x : x + width]
    if rng.random() < 0.5:
        part = part[:, ::-1]
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(np.ascontiguousarray(part), (hw[1], hw[0]), interpolation=how), np.uint8)


def seen_boxes(owner: NDArray[np.int32], totals: list[int]) -> NDArray[np.float32]:
    """Boxes (M, 5) of what is seen of the people 1..P in a map of who owns each pixel.

    Args:
        totals: pixels that each has, seen or not.
    """
    rows = []
    for number, total in enumerate(totals, start=1):
        mine = owner == number
        ys, xs = np.flatnonzero(mine.any(1)), np.flatnonzero(mine.any(0))
        share = np.count_nonzero(mine) / max(total, 1)
        if len(ys) == 0 or share < _HIDDEN:
            continue
        box = [xs[0], ys[0], xs[-1] + 1, ys[-1] + 1]
        small = min(box[2] - box[0], box[3] - box[1]) < _SMALLEST_PX
        rows.append([*box, IGNORED if share < _HARD or small else 1.0])
    return np.array(rows, np.float32).reshape(-1, 5)


def part_of(
    image: NDArray[np.uint8], boxes: NDArray[np.float32], hw: tuple[int, int], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A labelled image at a random scale and place in (H, W), grey where it does not reach; with its boxes.

    The scale brings one of its people to a random height; nothing is enlarged by more than a quarter. Where the window
    cuts a person, the seen part counts, and hardly seen people are ignored.
    """
    import cv2

    scale, centre = _view(image, boxes, hw, rng)
    flip = rng.random() < 0.5
    place = np.array([rng.uniform(0.1, 0.9) * hw[1], rng.uniform(0.1, 0.9) * hw[0]]) - scale * centre
    offset = np.array([_kept_inside(place[k], scale * image.shape[1 - k], hw[1 - k]) for k in (0, 1)])
    if scale < 0.6:  # warpAffine has no area averaging
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        matrix = np.array([[1, 0, offset[0]], [0, 1, offset[1]]])
    else:
        small, matrix = image, np.array([[scale, 0, offset[0]], [0, scale, offset[1]]])
    window = cv2.warpAffine(small, matrix, (hw[1], hw[0]), flags=cv2.INTER_LINEAR, borderValue=(_GREY,) * 3)
    moved = boxes.copy()
    moved[:, :4] = boxes[:, :4] * scale + np.tile(offset, 2)
    if flip:
        window = window[:, ::-1]
        moved[:, [0, 2]] = hw[1] - moved[:, [2, 0]]
    return np.ascontiguousarray(window, np.uint8), clipped(moved, hw)


def _view(
    image: NDArray[np.uint8], boxes: NDArray[np.float32], hw: tuple[int, int], rng: np.random.Generator
) -> tuple[float, NDArray[np.float64]]:
    """A scale, and the point x, y of the image that is to be seen: one of its people, or anything where it has none."""
    if len(boxes) == 0:
        scale = min(max(hw[0] / image.shape[0], hw[1] / image.shape[1]) * rng.uniform(0.7, 1.6), _MOST_ENLARGED)
        return scale, np.array([rng.uniform(0, image.shape[1]), rng.uniform(0, image.shape[0])])
    box = boxes[rng.integers(len(boxes))].astype(np.float64)
    height = max(box[3] - box[1], 1.0)
    most = min(_TALLEST * hw[0], _MOST_ENLARGED * height)
    return _log_uniform(min(_LEAST_HEIGHT_PX, most), most, rng) / height, (box[:2] + box[2:4]) / 2


def clipped(boxes: NDArray[np.float32], hw: tuple[int, int]) -> NDArray[np.float32]:
    """Boxes (M, 5) cut to an image; those cut to little are ignored, those hardly left are gone."""
    inside = boxes.copy()
    inside[:, :4] = np.clip(boxes[:, :4], 0, np.array([hw[1], hw[0]] * 2, np.float32))
    sides, before = inside[:, 2:4] - inside[:, :2], boxes[:, 2:4] - boxes[:, :2]
    share = sides.prod(1) / np.maximum(before.prod(1), 1e-6)
    inside[(share < _HARD) | (sides.min(1, initial=np.inf) < _SMALLEST_PX), 4] = IGNORED
    kept: NDArray[np.float32] = inside[(share >= _HIDDEN) & (sides > 1).all(1)]
    return kept


def _kept_inside(offset: float, size: float, window: int) -> float:
    """An offset that leaves no grey on both sides: an image that is wide enough fills the window."""
    low, high = sorted((0.0, window - size))
    return float(np.clip(offset, low, high))


def _paste(
    canvas: NDArray[np.uint8], owner: NDArray[np.int32], person: Person, x: int, y: int, number: int,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    """Blend a person, or as number 0 a decoy, into a scene, in place: soft edge, light drawn towards the place's."""
    import cv2

    y0, y1 = max(y, 0), min(y + person.shape[0], canvas.shape[0])
    x0, x1 = max(x, 0), min(x + person.shape[1], canvas.shape[1])
    if y1 <= y0 or x1 <= x0:
        return
    there, part = (slice(y0, y1), slice(x0, x1)), person[y0 - y : y1 - y, x0 - x : x1 - x]
    alpha = cv2.GaussianBlur(part[..., 3].astype(np.float32) / 255, (0, 0), 0.7)
    alpha = np.clip(2 * alpha - 1, 0, 1)[..., None]
    pixels = part[..., :3].astype(np.float32)
    seen = part[..., 3] > 127
    light = (canvas[there].mean() + 20) / (pixels[seen].mean() + 20) if seen.any() else 1.0
    pixels = pixels * np.clip(light, 0.3, 2.0) ** rng.uniform(0, 0.8) * rng.uniform(0.7, 1.25)
    if rng.random() < 0.3:
        pixels = cv2.GaussianBlur(pixels, (0, 0), rng.uniform(0.4, 1.2))
    canvas[there] = np.clip(canvas[there] * (1 - alpha) + pixels * alpha + 0.5, 0, 255).astype(np.uint8)
    owner[there][seen] = number


def _log_uniform(low: float, high: float, rng: np.random.Generator) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(max(high, low)))))
