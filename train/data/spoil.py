"""What cameras and networks do to photographs: exposure, white balance, blur, few pixels, noise, JPEG."""

import numpy as np
from numpy.typing import NDArray


def spoil(crop: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A worse photograph of the same; (H, W, 3) uint8 BGR in and out. Each fault has a probability of its own."""
    import cv2

    if rng.random() < 0.6:
        crop = _exposure(crop, rng)
    if rng.random() < 0.08:
        crop = np.repeat(cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY)[..., None], 3, 2)
    if rng.random() < 0.55:
        crop = _fewer_pixels(crop, rng.uniform(0.15, 0.7), rng)
    if rng.random() < 0.2:
        crop = _blur(crop, rng)
    if rng.random() < 0.25:
        noise = rng.standard_normal(crop.shape[:2], np.float32)[..., None] * rng.uniform(2, 14)
        crop = np.clip(crop + noise, 0, 255).astype(np.uint8)
    if rng.random() < 0.45:
        quality = int(rng.integers(18, 80))
        crop = cv2.imdecode(cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)
    return crop


def _exposure(crop: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Gamma and gain, and a gain a channel: one table of 256 levels each."""
    import cv2

    levels = np.linspace(0, 1, 256)[:, None]
    gains = np.exp(rng.normal(0, 0.1, 3)) * np.exp(rng.uniform(-0.55, 0.35))
    table = np.clip(levels ** np.exp(rng.normal(0, 0.3)) * gains, 0, 1)
    return cv2.LUT(crop, (table * 255 + 0.5).astype(np.uint8)[None])


def _fewer_pixels(crop: NDArray[np.uint8], share: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Shrunk and grown again: a person who was small in the photograph."""
    import cv2

    height, width = crop.shape[:2]
    small = cv2.resize(crop, (max(8, int(width * share)), max(8, int(height * share))), interpolation=cv2.INTER_AREA)
    if rng.random() < 0.5:
        quality = int(rng.integers(35, 90))
        small = cv2.imdecode(cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


def _blur(crop: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Out of focus, or moved along a line."""
    import cv2

    if rng.random() < 0.5:
        return cv2.GaussianBlur(crop, (0, 0), rng.uniform(0.8, 3.0))
    length = int(rng.integers(3, 13))
    line = np.zeros((length, length), np.float32)
    angle = rng.uniform(0, np.pi)
    half = (length - 1) / 2
    for step in np.linspace(-half, half, 2 * length):
        line[round(half + step * np.sin(angle)), round(half + step * np.cos(angle))] = 1
    return cv2.filter2D(crop, -1, line / line.sum())
