"""Kernels of a frame in C++ through ctypes: crops of people (`crop_people`) and labels with scores (`pixel_score`).

The library is built beside this file when the package is installed with a compiler at hand; it has a plain C
interface, and the interpreter's lock is released while it runs. Sources in cpp/: a folder for each job, simd.h for the
differences between instruction sets, kernels_*.cpp compiled once for each of them; the widest that this CPU has is
chosen when a kernel runs. The same bits for any number of threads.
"""

import ctypes
import functools
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qanet.errors import QanetError
from qanet.quality import PIXEL_SCORE_THRESHOLD, PixelScores, check_arguments, region_of
from qanet.quality.sampling import check_image, check_instance_boxes

_ABI = 3  # the same number as kAbiVersion in library.cpp
PATH = Path(__file__).with_name("libqanet_native.so.1")  # setup.py builds it under this name


@functools.cache
def load() -> ctypes.CDLL | None:
    """The library beside this file; None where it was not built, or was built from other sources."""
    try:
        library = ctypes.CDLL(str(PATH))
        return library if library.qanet_abi() == _ABI else None
    except (OSError, AttributeError):  # missing, for another platform, or another library
        return None


def available() -> bool:
    """Whether the library was built for this installation."""
    return load() is not None


def required() -> ctypes.CDLL:
    """The library; QanetError where there is none."""
    library = load()
    if library is None:
        raise QanetError(
            "the native back-end is not built",
            expected=f"{PATH.name} in {PATH.parent}",
            got="no such library, or one built from other sources",
            next_command="install a C++17 compiler and run `pip install --force-reinstall --no-deps` on qanet-edge",
        )
    return library


def lanes() -> tuple[int, ...]:
    """Vector widths in floats of the kernels that this machine can run, widest first; the first is used."""
    out = (ctypes.c_int32 * 3)()
    return tuple(out[: required().qanet_lanes(out)])


def check_status(status: int, vector_lanes: int) -> None:
    """Raise the error of an entry point's status: 1 for unknown lanes, 2 for memory that ran out."""
    if status == 1:
        raise QanetError("vector_lanes does not fit this machine", expected=f"0 or one of {lanes()}", got=vector_lanes)
    if status == 2:
        raise MemoryError("no memory for the kernel's rows")


def cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _CropRequest(ctypes.Structure):
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
    """All crops of one frame; arguments and result as `qanet.geometry.crop_people`, with weights that are not rounded.

    OpenCV's warp takes a bilinear sample at the nearest 1/32 pixel and rounds every sample; here the samples of a crop
    pixel are one weighted sum, first of rows and then of columns, rounded once. Sources in cpp/crop/: crop.cpp cuts
    the crops into bands, axis.h finds the weights, band.h does the sums.

    Args:
        image: (H, W, 3) uint8; rows may be any distance apart.
        threads: how many to use at most; None takes every core this process may run on.
        vector_lanes: one of `lanes()`, to try a narrower instruction set; 0 takes the widest.
    Raises:
        QanetError: arrays that do not fit, or a library that was not built.
    """
    native = required()
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
    request = _CropRequest(
        len(where),
        *crop_hw,
        *image.shape[:2],
        threads or cores(),
        vector_lanes,
        image.strides[0],
        image.ctypes.data,
        where.ctypes.data,
        crops.ctypes.data,
    )
    status = native.qanet_crop_run(ctypes.byref(request))
    check_status(status, vector_lanes)
    return crops


class _TailRequest(ctypes.Structure):
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

    Labels and scores are the reference's to rounding (1e-6 in a probability). Sources in cpp/tail/: tail.cpp cuts the
    work into tiles, tile.h scores one tile, softmax.h four crop rows of it at a time and for the classes that
    candidates.h leaves.

    float32 and float16 logits are read where they lie, whatever their strides; other floats are converted first.

    Args:
        threads: how many to use; None takes every core this process may run on.
        vector_lanes: one of `lanes()`, to try a narrower instruction set; 0 takes the widest.
    Raises:
        QanetError: an argument that does not fit, or a library that was not built.
    """
    native = required()
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
    request = _TailRequest(
        len(maps),
        num_classes,
        *maps.shape[2:],
        len(views),
        maps.dtype == np.float16,
        threads or cores(),
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
    check_status(status, vector_lanes)
    if status == 3:
        for name, view in zip(("logits", "flipped_logits"), views):
            check_arguments(view, boxes, image_size, threshold, name)  # raises, with which and how many
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
    required().qanet_tail_exp(
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
