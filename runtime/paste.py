"""Crop-sized label maps laid into an image, for the graph tail, which decides its labels inside the network."""

import numpy as np
from numpy.typing import NDArray

from qanet.geometry import box_to_image


def paste_labels(
    labels: NDArray[np.uint8], box: NDArray[np.float32], image_hw: tuple[int, int]
) -> tuple[NDArray[np.uint8], tuple[int, int, int, int]]:
    """A crop's label map at image resolution: the nearest crop pixel for every image pixel whose centre is inside."""
    affine = box_to_image(box, labels.shape)  # crop -> image
    steps, origin = np.diag(affine[:, :2]), affine[:, 2]
    limit = np.array([image_hw[1], image_hw[0]])
    low = np.clip(np.ceil(origin - 0.5), 0, limit).astype(int)
    high = np.clip(np.ceil(box[2:] - 0.5), low, limit).astype(int)
    columns, rows = (
        np.clip(((np.arange(low[k], high[k]) + 0.5 - origin[k]) / steps[k]).astype(int), 0, labels.shape[1 - k] - 1)
        for k in (0, 1)
    )
    return labels[rows[:, None], columns[None]], (int(low[0]), int(low[1]), int(high[0]), int(high[1]))
