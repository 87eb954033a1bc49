"""Which back-ends of the kernel tail this machine has, and how two answers of it are compared."""

import numpy as np

from qanet.errors import QanetError
from qanet.runtime.kernels import BACKENDS, choose_kernels

NEAR = 1e-5  # probabilities closer than this to a tie or a threshold may fall on either side of it


def available():
    """The back-ends that answer a trivial call, "numpy" first."""
    found = []
    for name in dict.fromkeys(("numpy", *BACKENDS)):
        try:
            choose_kernels(name).pixel_score(np.zeros((1, 2, 1, 1), np.float32), [[0, 0, 4, 4]], (4, 4))
        except QanetError:
            continue
        found.append(name)
    return found


def dense(logits, box, image_hw):
    """The pasted probabilities (C, H, W) of one person by the definition, with matrices in float64."""
    height, width = logits.shape[1:]
    x0, y0, x1, y1 = (float(value) for value in np.float32(box))
    rows = _paste(image_hw[0], y0, y1, 4 * height)
    columns = _paste(image_hw[1], x0, x1, 4 * width)
    crop = _upsample(height) @ logits.astype(np.float64) @ _upsample(width).T
    crop = np.exp(crop - crop.max(0))
    return rows @ (crop / crop.sum(0)) @ columns.T


def _upsample(size):
    """(4 size, size): bilinear x4, align_corners False."""
    where = np.clip((np.arange(4 * size) + 0.5) / 4 - 0.5, 0, size - 1)
    return np.maximum(1 - abs(where[:, None] - np.arange(size)), 0)


def _paste(pixels, start, stop, size):
    """(pixels, size): bilinear at the pixels' centres, zero padding."""
    where = (np.arange(pixels) + 0.5 - start) / (stop - start) * size - 0.5
    return np.maximum(1 - abs(where[:, None] - np.arange(size)), 0)


def assert_same(got, expected, pasted, threshold, atol=1e-5):
    """Equal regions; equal labels and scores wherever rounding cannot decide.

    Args:
        pasted: a list of N arrays (C, H, W) of `dense`.
    """
    assert np.array_equal(got.rois, expected.rois) and got.image_size == expected.image_size
    assert got.rois.dtype == np.int32 and got.part_scores.shape == expected.part_scores.shape
    for index, maps in enumerate(pasted):
        best, second = np.sort(maps, 0)[[-1, -2]]
        tie = (best > 0) & (best - second < NEAR)
        unsure = tie | (abs(best - 1 / len(maps)) < NEAR)
        assert got.labels[index].dtype == np.uint8 and got.labels[index].shape == expected.labels[index].shape
        assert np.array_equal(got.full(index)[~unsure], expected.full(index)[~unsure])
        if threshold > 0 and (abs(best - threshold) < NEAR).any():
            continue
        np.testing.assert_allclose(got.pixel_scores[index], expected.pixel_scores[index], rtol=0, atol=atol)
        if not tie.any():
            np.testing.assert_allclose(got.part_scores[index], expected.part_scores[index], rtol=0, atol=atol)
