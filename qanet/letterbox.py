"""Whole images into a detector's input, in their own aspect: one definition for training, calibration and runtime."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

_GREY = 114
Resize = Callable[[NDArray[np.uint8], int, int], NDArray[np.uint8]]


def letterboxed(
    image: NDArray[np.uint8], input_hw: tuple[int, int], resize: Resize | None = None
) -> tuple[NDArray[np.uint8], float]:
    """An image in its own aspect at the top left of a grey (H, W, 3) canvas, and the factor it was scaled by.

    Averaged where it shrinks, as the network saw it in training: a person of a large frame is a few cells, and
    bilinear sampling alone would leave out most of its pixels.

    Args:
        resize: image, rows and columns to the image at that size; None: OpenCV's, `resized`.
    """
    height, width = input_hw
    ratio = min(height / image.shape[0], width / image.shape[1])
    columns, rows = max(1, int(image.shape[1] * ratio + 1e-6)), max(1, int(image.shape[0] * ratio + 1e-6))
    canvas = np.full((height, width, 3), _GREY, np.uint8)
    canvas[:rows, :columns] = (resize or resized)(image, rows, columns)
    return canvas, ratio


def resized(image: NDArray[np.uint8], rows: int, columns: int) -> NDArray[np.uint8]:
    """At another size, as good as averaged over areas of any size, which costs several times as much.

    Means of 2x2 pixels are fast: down to under four times the size asked for by them, to its double by bilinear
    sampling, which leaves out nothing while it less than halves, and by one more mean to the size. An odd last row or
    column of a large image is left out on the way.
    """
    import cv2

    while image.shape[0] // 4 >= rows and image.shape[1] // 4 >= columns:
        half_hw = image.shape[0] // 2, image.shape[1] // 2
        even = image[: 2 * half_hw[0], : 2 * half_hw[1]]
        image = np.asarray(cv2.resize(even, half_hw[::-1], interpolation=cv2.INTER_AREA), np.uint8)
    how = cv2.INTER_AREA if image.shape[0] > rows else cv2.INTER_LINEAR
    if image.shape[0] // 2 >= rows and image.shape[1] // 2 >= columns:
        image = np.asarray(cv2.resize(image, (2 * columns, 2 * rows), interpolation=cv2.INTER_LINEAR), np.uint8)
    return np.asarray(cv2.resize(image, (columns, rows), interpolation=how), np.uint8)
