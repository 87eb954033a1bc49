"""The kernel tail in C++: the pixel score of `qanet.quality` with vectors and threads, and memory of a few rows.

Sources in cpp/tail/: tail.cpp cuts the work into tiles, tile.h scores one tile, softmax.h four crop rows of it at a
time and for the classes that candidates.h leaves.

Labels and scores are the reference's to rounding (1e-6 in a probability), and the same bits for any number of threads.
"""

import ctypes
import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qanet.errors import QanetError
from qanet.quality import PIXEL_SCORE_THRESHOLD, PixelScores, check_arguments, region_of
from qanet.quality.sampling import check_image, check_instance_boxes
from qanet.runtime.native import library


class _Request(ctypes.Structure):
    """`Request` of tail.cpp, field by field."""

    _fields_ = [
        *((name, ctypes.c_int32) for name in ("people", "classes", "map_h", "map_w")),
        *((name, ctypes.c_int32) for name in ("views", "half", "threads", "lanes")),
        ("data", ctypes.c_void_p * 2),
        ("strides", ctypes.c_int64 * 4 * 2),
        *((name, ctypes.c_void_p) for name in ("class_order", "boxes", "regions", "labels", "scores")),
        ("threshold", ctypes.c_float),
    ]


def pixel_score(
    logits: ArrayLike,
    boxes: ArrayLike,
    image_size: tuple[int, int],
    threshold: float = PIXEL_SCORE_THRESHOLD,
    flipped_logits: ArrayLike | None = None,
    flip_pairs: Sequence[tuple[int, int]] = (),
    *,
    threads: int | None = None,
    vector_lanes: int = 0,
) -> PixelScores:
    """Labels and pixel scores of N persons; arguments, result and errors as `qanet.quality.pixel_score`.

    float32 and float16 logits are read where they lie, whatever their strides; other floats are converted first.

    Args:
        threads: how many to use; None takes every core this process may run on.
        vector_lanes: one of `library.lanes()`, to try a narrower instruction set; 0 takes the widest.
    Raises:
        QanetError: an argument that does not fit, or a library that was not built.
    """
    native = library.required()
    maps, where = _checked(logits, boxes, image_size, threshold, "logits")
    views = [maps]
    num_classes = maps.shape[1]
    order = _class_order(num_classes)
    if flipped_logits is not None:
        mirrored, _ = _checked(flipped_logits, boxes, image_size, threshold, "flipped_logits")
        if mirrored.shape != maps.shape:
            raise QanetError("flipped_logits do not fit", expected=maps.shape, got=mirrored.shape)
        if mirrored.dtype != maps.dtype:
            maps, mirrored = maps.astype(np.float32, copy=False), mirrored.astype(np.float32, copy=False)
        views, order = [maps, mirrored[..., ::-1]], order.copy()
        for left, right in flip_pairs:
            order[1, left], order[1, right] = right, left
    rois = np.array([region_of(box, maps.shape[2:], image_size) for box in where], np.int32).reshape(-1, 4)
    labels = [np.empty((y1 - y0, x1 - x0), np.uint8) for x0, y0, x1, y1 in rois.tolist()]
    scores = np.zeros((len(maps), num_classes), np.float32)  # column 0: the whole person
    pointers = (ctypes.c_void_p * len(maps))(*(region.ctypes.data for region in labels))
    request = _Request(
        len(maps),
        num_classes,
        *maps.shape[2:],
        len(views),
        maps.dtype == np.float16,
        threads or library.cores(),
        vector_lanes,
        class_order=order.ctypes.data,
        boxes=where.ctypes.data,
        regions=rois.ctypes.data,
        labels=ctypes.addressof(pointers),
        scores=scores.ctypes.data,
        threshold=threshold,
    )
    for index, view in enumerate(views):
        request.data[index] = view.ctypes.data
        request.strides[index][:] = view.strides
    status = native.qanet_tail_run(ctypes.byref(request))
    library.check_status(status, vector_lanes)
    if status == 3:
        for name, view in zip(("logits", "flipped_logits"), views):
            check_arguments(view, boxes, image_size, threshold, name)  # tells which and how many
    return PixelScores(rois, labels, scores[:, 0], scores[:, 1:], (int(image_size[0]), int(image_size[1])))


@functools.cache
def _class_order(num_classes: int) -> NDArray[np.int32]:
    """(views, C): the channel each class is read from, without a swap."""
    return np.tile(np.arange(num_classes, dtype=np.int32), (2, 1))


def exp(x: NDArray[np.float32], vector_lanes: int = 0) -> NDArray[np.float32]:
    """e^x as the kernel computes it, for x <= 0; the tests hold it against the exact value. Any shape, float32."""
    padded = np.zeros(-(-x.size // 16) * 16, np.float32)
    padded[: x.size] = x.ravel()
    out = np.empty_like(padded)
    library.required().qanet_tail_exp(
        vector_lanes, ctypes.c_void_p(padded.ctypes.data), ctypes.c_void_p(out.ctypes.data), ctypes.c_int64(x.size)
    )
    return out[: x.size].reshape(x.shape)


def _checked(
    logits: ArrayLike, boxes: ArrayLike, image_size: tuple[int, int], threshold: float, name: str
) -> tuple[NDArray, NDArray[np.float32]]:
    """`check_arguments` without its copy and without a look at the numbers themselves, which the library takes."""
    maps = np.asarray(logits)
    if maps.ndim == 4 and maps.dtype.kind == "f" and maps.size and 2 <= maps.shape[1] <= 256:
        where = check_instance_boxes(boxes, len(maps))
        check_image(image_size, threshold)
    else:
        _, where = check_arguments(maps, boxes, image_size, threshold, name)
    if maps.dtype not in (np.float32, np.float16) or not maps.dtype.isnative:
        with np.errstate(over="ignore"):  # beyond float32 is infinite, which the library refuses
            maps = maps.astype(np.float32)
    return maps, np.ascontiguousarray(where)
