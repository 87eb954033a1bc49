"""The letterbox of whole images: where the image lies, and that shrinking averages whatever the factor."""

import cv2
import numpy as np
import pytest

from qanet import geometry
from qanet.runtime.kernels import choose_kernels


@pytest.fixture(params=[geometry.letterboxed, choose_kernels().letterboxed], ids=["definition", "runtime"])
def letterboxed(request):
    return request.param


def scene(height, width, seed=0):
    """Smooth shapes with fine grain, as photographs have."""
    rng = np.random.default_rng(seed)
    coarse = cv2.resize(rng.integers(0, 256, (9, 12, 3)).astype(np.uint8), (width, height))
    return np.clip(coarse + rng.normal(0, 20, (height, width, 3)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    "image_hw", [(300, 480), (500, 800), (994, 1768), (993, 1767), (1080, 1920), (2160, 3840), (2000, 700)]
)
def test_shrinking_is_near_the_average_over_areas(letterboxed, image_hw):
    image = scene(*image_hw)
    canvas, ratio = letterboxed(image, (320, 512))
    rows, columns = int(image_hw[0] * ratio + 1e-6), int(image_hw[1] * ratio + 1e-6)
    averaged = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA)
    assert canvas.shape == (320, 512, 3) and (canvas[rows:] == 114).all() and (canvas[:, columns:] == 114).all()
    difference = np.abs(canvas[:rows, :columns].astype(int) - averaged)
    sampled = np.abs(cv2.resize(image, (columns, rows)).astype(int) - averaged)
    assert difference.mean() < (4 if ratio > 0.1 else 6)
    assert ratio > 0.5 or difference.mean() < 0.6 * sampled.mean()


def test_nothing_moves(letterboxed):
    """A bright square stays where the factor puts it, by less than half a pixel, at every number of halvings."""
    for image_hw in ((1000, 1600), (1001, 1601), (2561, 4099), (2900, 4700)):
        image = np.zeros((*image_hw, 3), np.uint8)
        y, x = image_hw[0] // 2, image_hw[1] // 2
        image[y : y + 200, x : x + 240] = 200
        canvas, ratio = letterboxed(image, (320, 512))
        weights = canvas[..., 0].astype(float) * (canvas[..., 0] != 114)
        ys, xs = np.mgrid[:320, :512] + 0.5
        centre = (weights * ys).sum() / weights.sum(), (weights * xs).sum() / weights.sum()
        assert centre == pytest.approx(((y + 100) * ratio, (x + 120) * ratio), abs=0.5)


def test_an_image_is_not_changed_and_tiny_ones_are_enlarged(letterboxed):
    image = scene(400, 640)
    before = image.copy()
    letterboxed(image, (64, 96))
    assert (image == before).all()
    canvas, ratio = letterboxed(np.full((1, 700, 3), 9, np.uint8), (64, 96))  # less than a row is left: one stays
    assert ratio == pytest.approx(96 / 700) and (canvas[0] == 9).all() and (canvas[1:] == 114).all()
    assert letterboxed(np.full((2, 3, 3), 9, np.uint8), (64, 96))[1] == 32
