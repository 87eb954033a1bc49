"""What is pasted like people and is nobody, so that a seam, a contrast or an upright shape alone is no evidence.

Every decoy has the form of a cut-out, BGR and a mask, and is resized, turned, lit and blended by the same code: what
tells a person from it is what the person looks like.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from qanet.train.detection.scenes.people import Person

SIDE_PX = 160  # of a decoy as it is made; it is resized like a person afterwards
_LEAST_SILHOUETTE_PX = 56.0  # smaller ones of any texture may well be people
_LEAST_CONTRAST = 22.0  # standard deviation of a silhouette's texture: plain ones are people against the light
_SHAPES = ("silhouette", "ellipse", "block", "bar", "gap", "slit")
_SHARES = (0.18, 0.12, 0.15, 0.15, 0.2, 0.2)
_PLAIN = 0.25  # probability of one colour with some grain, as a wall or a bright sky has
_RAGGED = 0.6  # probability of an edge like bark or leaves
_EDGE_PX = 5.0  # greatest shift of such an edge


def decoy(
    photograph: NDArray[np.uint8], silhouette: Callable[[], Person], height_px: float, rng: np.random.Generator
) -> Person:
    """A patch (h, w, 4), not yet resized, that is pasted and not asked for.

    Args:
        photograph: one without people, for the texture.
        silhouette: gives a person, of whom the outline is taken.
        height_px: of the decoy in the scene; small ones are no silhouettes.
    """
    shape = str(rng.choice(_SHAPES, p=_SHARES))
    if shape == "silhouette" and height_px >= _LEAST_SILHOUETTE_PX:
        mask = silhouette()[..., 3]
        filling = texture(photograph, mask.shape[:2], rng)
        if filling.std((0, 1)).mean() >= _LEAST_CONTRAST:
            return _filled(mask, filling)
    hw = _size_of(shape, rng)
    if shape == "slit":
        return _slit(photograph, hw, rng)
    mask = _mask(shape, hw, rng)
    if rng.random() < _RAGGED:
        mask = ragged(mask, rng)
    filling = plain(hw, rng) if rng.random() < _PLAIN else texture(photograph, hw, rng)
    if shape in ("bar", "gap") and rng.random() < 0.7:  # trunks and posts against the light
        filling = (filling * rng.uniform(0.15, 0.7)).astype(np.uint8)
    return _filled(mask, filling)


def texture(photograph: NDArray[np.uint8], hw: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A random part of a photograph as (h, w, 3), at a random scale."""
    import cv2

    most = min(photograph.shape[0] / hw[0], photograph.shape[1] / hw[1])
    scale = min(rng.uniform(0.5, 3.0), most)  # of the photograph's pixels for one of the texture
    height, width = max(int(hw[0] * scale), 1), max(int(hw[1] * scale), 1)
    y, x = int(rng.integers(photograph.shape[0] - height + 1)), int(rng.integers(photograph.shape[1] - width + 1))
    how = cv2.INTER_AREA if scale > 1 else cv2.INTER_LINEAR
    part = np.ascontiguousarray(photograph[y : y + height, x : x + width])
    return np.asarray(cv2.resize(part, (hw[1], hw[0]), interpolation=how), np.uint8)


def plain(hw: tuple[int, int], rng: np.random.Generator) -> NDArray[np.uint8]:
    """(h, w, 3) of one greyish colour with grain, a little lighter or darker downwards."""
    colour = rng.uniform(20, 255) + rng.normal(0, 14, 3)
    slope = np.linspace(0, rng.normal(0, 25), hw[0])[:, None, None]
    grain = rng.normal(0, rng.uniform(0, 10), (*hw, 1))
    return np.clip(colour + slope + grain, 0, 255).astype(np.uint8)


def ragged(mask: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A mask whose edge wanders by a few pixels."""
    import cv2

    height, width = mask.shape
    cells = (max(width // 12, 2), max(height // 12, 2))
    shifts = [
        cv2.resize(rng.uniform(-_EDGE_PX, _EDGE_PX, cells[::-1]).astype(np.float32), (width, height)) for _ in "xy"
    ]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return np.asarray(cv2.remap(mask, x + shifts[0], y + shifts[1], cv2.INTER_LINEAR), np.uint8)


def _size_of(shape: str, rng: np.random.Generator) -> tuple[int, int]:
    """(h, w): as upright as people are, bars thinner, gaps as wide as their bars add."""
    low, high = {"bar": (0.06, 0.3), "gap": (0.5, 1.3), "slit": (0.5, 1.3)}.get(shape, (0.25, 0.7))
    return SIDE_PX, max(int(SIDE_PX * rng.uniform(low, high)), 8)


def _mask(shape: str, hw: tuple[int, int], rng: np.random.Generator) -> NDArray[np.uint8]:
    """(h, w) of 0 or 255: an ellipse, a block or a bar, or a gap: two bars with what lies behind them between."""
    height, width = hw
    mask = np.zeros(hw, np.uint8)
    if shape in ("ellipse", "silhouette"):
        y, x = np.mgrid[:height, :width]
        mask[np.hypot((x + 0.5) / width * 2 - 1, (y + 0.5) / height * 2 - 1) < 1] = 255
    elif shape in ("block", "bar"):
        mask[2 : height - 2, 2 : width - 2] = 255
    else:
        left, right = (int(width * rng.uniform(0.12, 0.38)) for _ in range(2))
        mask[:, :left], mask[:, width - right :] = 255, 255
        for end in (slice(None, int(height * rng.uniform(0, 0.25))), slice(height - int(height * 0.2), None)):
            if rng.random() < 0.5:  # closed at that end, as between branches or under a lintel
                mask[end] = 255
    return mask


def _slit(photograph: NDArray[np.uint8], hw: tuple[int, int], rng: np.random.Generator) -> Person:
    """A dark patch with a bright opening as upright as a person: sky or a wall between trunks, a lit door."""
    import cv2

    dark = texture(photograph, hw, rng) * rng.uniform(0.15, 0.6)
    bright = plain(hw, rng) if rng.random() < 0.4 else texture(photograph, hw, rng)
    bright = np.clip(bright * rng.uniform(0.8, 1.4) + rng.uniform(20, 110), 0, 255)
    height = int(hw[0] * rng.uniform(0.45, 0.9))
    width = max(min(int(height * rng.uniform(0.18, 0.6)), hw[1] - 4), 2)
    y, x = int(rng.integers(hw[0] - height + 1)), int(rng.integers(hw[1] - width + 1))
    opening = np.zeros(hw, np.uint8)
    opening[y : y + height, x : x + width] = 255
    opening = cv2.GaussianBlur(ragged(opening, rng), (0, 0), 1.0)
    share = opening[..., None].astype(np.float32) / 255
    outline = ragged(np.full(hw, 255, np.uint8), rng)
    return _filled(outline, (dark * (1 - share) + bright * share).astype(np.uint8))


def _filled(mask: NDArray[np.uint8], filling: NDArray[np.uint8]) -> Person:
    return np.dstack([filling, mask])
