"""One choice of kernels per installation, and the same results by each."""

import numpy as np
import pytest

from qanet import geometry, quality
from qanet import geometry as letterbox
from qanet.runtime import native
from qanet.runtime.kernels import choose_kernels

built = pytest.mark.skipif(not native.available(), reason="the native library is not built: it needs a C++17 compiler")
IMAGE = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
BOXES = np.array([[3, 2, 40, 55], [-10, 5, 95, 70]], np.float32)
LOGITS = np.random.default_rng(1).normal(0, 3, (2, 5, 8, 6)).astype(np.float32)


def test_without_the_library_all_kernels_are_the_definitions(monkeypatch):
    monkeypatch.setattr(native, "available", lambda: False)
    kernels = choose_kernels()
    assert kernels.name == "numpy"
    assert np.array_equal(kernels.crop_people(IMAGE, BOXES, (16, 12)), geometry.crop_people(IMAGE, BOXES, (16, 12)))
    assert np.array_equal(kernels.letterboxed(IMAGE, (32, 64))[0], letterbox.letterboxed(IMAGE, (32, 64))[0])
    scored, expected = (f(LOGITS, BOXES, IMAGE.shape[:2]) for f in (kernels.pixel_score, quality.pixel_score))
    assert np.array_equal(scored.pixel_scores, expected.pixel_scores)


@built
def test_with_the_library_all_kernels_are_its_own_and_agree():
    kernels, reference = choose_kernels(), choose_kernels("numpy")
    assert kernels.name == "native"
    scored, expected = (k.pixel_score(LOGITS, BOXES, IMAGE.shape[:2]) for k in (kernels, reference))
    np.testing.assert_allclose(scored.pixel_scores, expected.pixel_scores, atol=1e-5)
    canvas, ratio = kernels.letterboxed(IMAGE, (32, 64))
    other, same = reference.letterboxed(IMAGE, (32, 64))
    assert ratio == same and np.abs(canvas.astype(int) - other).mean() < 8
    large = np.full((2000, 3000, 3), 77, np.uint8)  # shrinks beyond the samples of a crop: by OpenCV
    assert np.array_equal(kernels.letterboxed(large, (64, 96))[0], reference.letterboxed(large, (64, 96))[0])
