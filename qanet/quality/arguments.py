"""What every form of a pixel score demands of its arguments: shapes, types and ranges, told by name."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qanet.errors import QanetError


def check_arguments(
    logits: ArrayLike, boxes: ArrayLike, image_size: tuple[int, int], threshold: float, name: str = "logits"
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Validate the arguments every form of the parsing pixel score takes.

    Args:
        logits: (N, C, h, w) floats of any width and layout, 2 to 256 classes, every one finite in float32: a nan or
            an infinity comes of an engine that overflowed, and no label or score made of it means anything.
        boxes: (N, 4) numbers, x0 y0 x1 y1 in continuous image pixels.
        image_size: (H, W) pixels.
        threshold: T in [0, 1).
        name: what the logits are called in an error.
    Returns:
        Contiguous float32 logits (N, C, h, w) and float32 boxes (N, 4).
    Raises:
        QanetError: naming the argument, with expected against got.
    """
    maps = np.asarray(logits)
    if maps.ndim != 4 or maps.dtype.kind != "f":
        raise QanetError(f"{name} do not fit", expected="floats (N, C, h, w)", got=f"{maps.dtype} {maps.shape}")
    if not 2 <= maps.shape[1] <= 256:
        raise QanetError(f"{name} have a bad number of classes", expected="2 to 256", got=maps.shape[1])
    where = check_boxes(boxes, len(maps))
    check_image(image_size, threshold)
    return check_maps(name, maps), where


def check_maps(name: str, maps: NDArray[np.floating]) -> NDArray[np.float32]:
    """(N, C, h, w) floats as contiguous float32; QanetError, with `name`, for an empty map or what is not finite."""
    if min(maps.shape[2:]) < 1:
        raise QanetError(f"{name} have an empty map", expected="h and w of 1 or more", got=maps.shape[2:])
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, which is refused below
        single = np.ascontiguousarray(maps, np.float32)
    # Both extremes are finite exactly when every number is: they hand on nan, and need no array of their own.
    if single.size and not (np.isfinite(single.max()) and np.isfinite(single.min())):
        wrong = int(single.size - np.isfinite(single).sum())
        raise QanetError(f"{name} are not finite", expected="finite float32", got=f"{wrong} nan or infinite numbers")
    return single


def check_boxes(boxes: ArrayLike, count: int) -> NDArray[np.float32]:
    """(count, 4) float32 boxes with x0 < x1 and y0 < y1; QanetError for anything else."""
    try:
        where = np.asarray(boxes, np.float32)
    except (TypeError, ValueError) as error:
        raise QanetError("boxes are not numbers", expected=(count, 4), got=boxes) from error
    if where.size == 0:
        where = where.reshape(-1, 4)
    if where.shape != (count, 4):
        raise QanetError("boxes do not fit the logits", expected=(count, 4), got=where.shape)
    if not np.isfinite(where).all() or (where[:, 2:] <= where[:, :2]).any():
        raise QanetError("a box is not finite or is empty", expected="finite x0 < x1, y0 < y1", got=where.tolist())
    return where


def check_image(image_size: tuple[int, int], threshold: float) -> None:
    """(H, W) of a pixel or more and 0 <= T < 1; QanetError for anything else."""
    if len(image_size) != 2 or min(image_size) < 1:
        raise QanetError("image_size does not fit", expected="(H, W) of 1 or more", got=image_size)
    if not 0 <= threshold < 1:
        raise QanetError("threshold out of range", expected="0 <= T < 1", got=threshold)
