"""Pictures against the light: a glare somewhere, a veil over everything, and what is near dark."""

import numpy as np
from numpy.typing import NDArray

_STRONGEST_GLARE, _THICKEST_VEIL, _DARKEST = 0.9, 0.4, 0.35  # 0..1 each; the last is what is left of the dark parts


def against_light(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """An image (H, W, 3) uint8 as a camera sees it that looks at the sun: shadows deeper, blacks lifted, a glare."""
    height, width = image.shape[:2]
    tone = np.linspace(0, 1, 256, dtype=np.float32) ** rng.uniform(1.0, 1 / _DARKEST)
    linear = tone[image]
    veil = rng.uniform(0, _THICKEST_VEIL)
    colour = np.array([rng.uniform(0.6, 1.0), rng.uniform(0.8, 1.0), 1.0], np.float32)  # BGR: white to the sun's
    y, x = rng.uniform(-0.1, 0.7) * height, rng.uniform(-0.1, 1.1) * width
    rows, columns = np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)[None]
    reach = rng.uniform(0.08, 0.5) * max(height, width)
    glare = rng.uniform(0, _STRONGEST_GLARE) * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * reach**2))
    covered = (1 - (1 - veil) * (1 - glare))[..., None].astype(np.float32)  # light added twice is not twice as bright
    return np.asarray(np.clip((linear * (1 - covered) + colour * covered) * 255 + 0.5, 0, 255), np.uint8)
