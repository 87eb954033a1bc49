"""Crops of people and letterboxes on the CPU: in C++ where the library was built, by OpenCV elsewhere."""

import numpy as np
from numpy.typing import NDArray

from qanet import geometry
from qanet import geometry as letterbox


def crop_people(image: NDArray[np.uint8], boxes: NDArray[np.float32], crop_hw: tuple[int, int]) -> NDArray[np.uint8]:
    """`qanet.geometry.crop_people`, to a rounding: arguments and result are the same."""
    from qanet.runtime.native import crop, library

    if library.available():
        return crop.crop_people(image, boxes, crop_hw)
    return geometry.crop_people(image, boxes, crop_hw)


def letterboxed(image: NDArray[np.uint8], input_hw: tuple[int, int]) -> tuple[NDArray[np.uint8], float]:
    """`qanet.geometry.letterboxed`; in C++ every pixel is the mean of its area, by the samples of a crop."""
    from qanet.runtime.native import library

    return letterbox.letterboxed(image, input_hw, _whole if library.available() else None)


def _whole(image: NDArray[np.uint8], rows: int, columns: int) -> NDArray[np.uint8]:
    """The whole image as one crop; beyond the factor at which a crop's samples leave pixels out, by OpenCV."""
    from qanet.runtime.native import crop

    if max(image.shape[0] / rows, image.shape[1] / columns) > geometry.MAX_SUBSAMPLES:
        return letterbox.resized(image, rows, columns)
    box = np.array([[0, 0, image.shape[1], image.shape[0]]], np.float32)
    return crop.crop_people(image, box, (rows, columns))[0]
