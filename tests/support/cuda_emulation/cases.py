"""What the kernels are tested on, emulated or on a GPU: golden cases, odd shapes, and the definitions in float64."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from qanet.geometry import box_to_image, subsamples

# Classes, logits (h, w), image (H, W), boxes: larger and smaller than the image, far outside, thinner than a pixel.
SHAPES = {
    "one_cell": (2, (1, 1), (3, 5), [[0.2, 0.1, 4.7, 2.9]]),
    "one_pixel": (20, (3, 5), (1, 1), [[-2.0, -3.0, 6.0, 7.0]]),
    "region_of_one_pixel": (20, (8, 6), (40, 50), [[10.2, 20.1, 10.9, 20.8]]),
    "odd": (20, (13, 7), (61, 45), [[-3.7, 5.2, 30.1, 57.9]]),
    "enlarged_much": (7, (2, 3), (150, 170), [[-300.5, -200.25, 500.0, 400.0]]),
    "shrunk_much": (20, (48, 36), (33, 41), [[2.0, 3.0, 38.5, 31.5]]),
    "five": (
        59,
        (9, 7),
        (70, 90),
        [[1, 2, 40, 60], [30, 5, 80, 69], [-500, -400, -300, -200], [88, 68, 120, 130], [5.5, 6.5, 6.1, 7.3]],
    ),
    "all_classes": (256, (6, 5), (50, 60), [[3, 4, 57, 49]]),
    "all_classes_shrunk": (256, (40, 30), (20, 40), [[1, 1, 38, 19]]),
}

# Image (H, W), crop (h, w), boxes: equal scale, enlarged, shrunk by up to and beyond 8, over the edges, far outside.
CROPS = {
    "one_pixel": ((1, 1), (1, 1), [[0, 0, 1, 1]]),
    "odd": ((37, 53), (19, 13), [[-4.3, 2.2, 20.1, 40.7]]),
    "shrunk": ((90, 120), (12, 9), [[3.2, 1.1, 60.3, 80.2], [-30, -20, 130, 110], [0, 0, 118, 88]]),
    "enlarged": ((20, 30), (40, 35), [[10.3, 5.1, 14.2, 9.7], [28, 18, 33, 23], [0.4, 0.4, 0.9, 0.9]]),
    "outside": ((24, 24), (16, 12), [[-5000, -5000, -4990, -4980], [900000, 2, 900012, 18], [-12, -16, 36, 48]]),
    "blocks": ((64, 64), (33, 65), [[1, 2, 60, 61], [5.5, 5.5, 22.25, 38.5]]),
}


def load_golden(golden, name):
    """A golden case: its arrays, (H, W), and the arguments of `score` for the second view."""
    with np.load(golden / "pixel_score" / f"{name}.npz") as arrays:
        case = dict(arrays)
    views = {}
    if "logits_flip" in case:
        classes = np.arange(case["logits"].shape[1])
        pairs = case["flip_map"] if case["flip_map"].ndim == 2 else enumerate(case["flip_map"])
        for left, right in pairs:
            classes[left], classes[right] = right, left
        views = {"flipped": case["logits_flip"].astype(np.float32), "flip_classes": classes}
    return case, tuple(case["image_hw"].tolist()), views


def check_definition(got, logits, boxes, threshold, flipped=None, flip_classes=()):
    """Labels of all unambiguous pixels and all scores, person by person, against float64."""
    for index, (roi, box) in enumerate(zip(got.rois, boxes)):
        second = {} if flipped is None else {"flipped": flipped[index], "flip_classes": flip_classes}
        maps = probabilities(logits[index], np.asarray(box, np.float32), roi, **second)
        best, winner = maps.max(0), maps.argmax(0)
        unsure = ambiguous(maps)
        expected = np.where(best >= 1 / len(maps), winner, 0)
        assert np.array_equal(got.labels[index][~unsure], expected[~unsure])
        certain = best >= threshold
        if (unsure & (best > 0)).any() or (np.abs(best - threshold) < 1e-6).any():
            continue
        chosen = [best[certain & (winner == c)] for c in range(1, len(maps))]
        parts = [values.mean() if values.size else 0 for values in chosen]
        np.testing.assert_allclose(got.part_scores[index], parts, rtol=0, atol=1e-5)
        whole = best[certain].mean() if certain.any() else 0
        np.testing.assert_allclose(got.pixel_scores[index], whole, rtol=0, atol=1e-5)


def _taps(position: NDArray, size: int) -> NDArray:
    """(positions, size) weights of linear interpolation; what lies outside weighs nothing."""
    return np.maximum(0, 1 - np.abs(position[:, None] - np.arange(size)))


def probabilities(
    logits: NDArray, box: NDArray, roi: NDArray, flipped: NDArray | None = None, flip_classes: Sequence[int] = ()
) -> NDArray[np.float64]:
    """(C, rows, columns) of one person's region in float64, by the definition: logits (C, h, w), box xyxy."""
    if flipped is not None:
        mirrored = flipped[list(flip_classes)][:, :, ::-1]
        return (probabilities(logits, box, roi) + probabilities(mirrored, box, roi)) / 2
    crop = logits.astype(np.float64)
    pasted = []
    for axis, size in ((0, logits.shape[2]), (1, logits.shape[1])):  # x, y
        up = _taps(np.clip((np.arange(4 * size) + 0.5) / 4 - 0.5, 0, size - 1), size)
        crop = np.moveaxis(np.tensordot(crop, up, ([2 - axis], [1])), -1, 2 - axis)
        near, far = (float(value) for value in box[[axis, axis + 2]])
        centres = np.arange(roi[axis], roi[axis + 2]) + 0.5
        pasted.append(_taps((centres - near) * (4 * size / (far - near)) - 0.5, 4 * size))
    crop = np.exp(crop - crop.max(0))
    crop /= crop.sum(0)
    return np.einsum("yv,cvu,xu->cyx", pasted[1], crop, pasted[0], optimize=True)


def ambiguous(maps: NDArray[np.float64], near: float = 1e-5, near_uniform: float = 1e-6) -> NDArray[np.bool_]:
    """Where rounding may choose another label: the two best, or the best and 1/C, are almost equal."""
    ordered = np.sort(maps, 0)
    return (ordered[-1] - ordered[-2] < near) | (np.abs(ordered[-1] - 1 / len(maps)) < near_uniform)


def crop_definition(image, box, crop_hw, plain=False):
    """(h, w, 3) float64: the mean of nx x ny bilinear samples, zero outside the image."""
    samples = (1, 1) if plain else subsamples(box_to_image(np.asarray(box, np.float32), crop_hw))
    weights = []
    for axis, (count, size, limit) in enumerate(zip(samples, crop_hw[::-1], image.shape[1::-1])):
        near, far = (float(np.float32(box[axis + end])) for end in (0, 2))
        position = near + (np.arange(size * count) + 0.5) / count * (far - near) / size - 0.5
        taps = np.maximum(0, 1 - np.abs(position[:, None] - np.arange(limit)))
        weights.append(taps.reshape(size, count, limit).mean(1))
    return np.einsum("yv,vuc,xu->yxc", weights[1], image.astype(np.float64), weights[0], optimize=True)
