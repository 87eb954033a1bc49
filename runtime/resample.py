"""The crops of a frame's people on the CPU: in C++ where the library was built, by OpenCV elsewhere."""

import numpy as np
from numpy.typing import NDArray

from qanet import geometry


def crop_people(image: NDArray[np.uint8], boxes: NDArray[np.float32], crop_hw: tuple[int, int]) -> NDArray[np.uint8]:
    """`qanet.geometry.crop_people`, to a rounding: arguments and result are the same."""
    from qanet.runtime.native import crop, library

    if library.available():
        return crop.crop_people(image, boxes, crop_hw)
    return geometry.crop_people(image, boxes, crop_hw)
