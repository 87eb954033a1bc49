"""The crop in C++: `qanet.geometry.crop_people` with vectors and threads, and weights that are not rounded.

OpenCV's warp takes a bilinear sample at the nearest 1/32 pixel and rounds every sample; here the samples of a crop
pixel are one weighted sum, first of rows and then of columns, rounded once. Sources in cpp/crop/: crop.cpp cuts the
crops into bands, axis.h finds the weights, band.h does the sums. The same bits for any number of threads.
"""

import ctypes

import numpy as np
from numpy.typing import NDArray

from qanet.errors import QanetError
from qanet.runtime.native import library


class _Request(ctypes.Structure):
    """`CropRequest` of crop.cpp, field by field."""

    _fields_ = [
        *((name, ctypes.c_int32) for name in ("people", "crop_h", "crop_w", "image_h", "image_w", "threads", "lanes")),
        ("row_bytes", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("image", "boxes", "crops")),
    ]


def crop_people(
    image: NDArray[np.uint8],
    boxes: NDArray[np.float32],
    crop_hw: tuple[int, int],
    *,
    threads: int | None = None,
    vector_lanes: int = 0,
) -> NDArray[np.uint8]:
    """All crops of one frame; arguments and result as `qanet.geometry.crop_people`.

    Args:
        image: (H, W, 3) uint8; rows may be any distance apart.
        threads: how many to use at most; None takes every core this process may run on.
        vector_lanes: one of `library.lanes()`, to try a narrower instruction set; 0 takes the widest.
    Raises:
        QanetError: arrays that do not fit, or a library that was not built.
    """
    native = library.required()
    where = np.ascontiguousarray(boxes, np.float32).reshape(-1, 4)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise QanetError("not an image", expected="(H, W, 3) uint8", got=f"{image.shape} {image.dtype}")
    if not np.isfinite(where).all():
        raise QanetError("a box is not finite", expected="numbers in pixels", got=where.tolist())
    crops = np.empty((len(where), *crop_hw, 3), np.uint8)
    if image.size == 0 or crops.size == 0:
        crops[:] = 0
        return crops
    if image.strides[1:] != (3, 1):
        image = np.ascontiguousarray(image)
    request = _Request(
        len(where),
        *crop_hw,
        *image.shape[:2],
        threads or library.cores(),
        vector_lanes,
        image.strides[0],
        image.ctypes.data,
        where.ctypes.data,
        crops.ctypes.data,
    )
    status = native.qanet_crop_run(ctypes.byref(request))
    library.check_status(status, vector_lanes)
    return crops
