"""Boxes, crops and letterboxes: the one definition that training, calibration and the runtime share.

Coordinates are continuous image pixels: pixel i covers [i, i + 1), so its centre is i + 0.5. Boxes are xyxy
float32. A crop box is a person's box grown to the crop's aspect and then by CROP_SCALE about its centre
(method: ground-truth box grown to the W/H aspect, x1.25).
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qanet.errors import QanetError

CROP_SCALE = 1.25
_GREY = 114  # around a letterboxed image
_FRACTION = 1.5  # coordinates up to here are fractions of an image, which may leave it a little
_TINY_PX = 8  # sides of an image in which a box of a pixel may be meant
_MAX_COORDINATE_PX = 1e6  # OpenCV warps in 32-bit fixed point, which wraps around far beyond it
_MAX_LABEL_BYTES = 2 << 30  # of the people of one image: 1,000 people of 2 megapixels each
MAX_SUBSAMPLES = 8  # per axis; a person 8 x the crop's size loses nothing visible and stays bounded in time
Resize = Callable[[NDArray[np.uint8], int, int], NDArray[np.uint8]]  # image, rows, columns -> the image at that size


def check_boxes(boxes: ArrayLike, image_hw: tuple[int, int] | None = None) -> NDArray[np.float32]:
    """Validate boxes: (N, 4) float32 xyxy, finite, positive area, touching the image where its size is given.

    Raises:
        QanetError: naming the first box that is inverted, empty, NaN, or wholly outside the image; boxes in fractions
            of the image.

    >>> check_boxes([[10, 20, 110, 220]], image_hw=(480, 640)).shape
    (1, 4)
    >>> check_boxes([[10, 20, 10, 220]])
    Traceback (most recent call last):
    qanet.errors.QanetError: box 0 is empty (expected x0 < x1 and y0 < y1, got [10.0, 20.0, 10.0, 220.0])
    """
    try:
        array = np.asarray(boxes, np.float32)
    except (TypeError, ValueError) as error:
        raise QanetError("boxes are not numbers", expected="(N, 4) as x0 y0 x1 y1", got=boxes) from error
    if array.size == 0:
        return np.zeros((0, 4), np.float32)
    if array.ndim != 2 or array.shape[1] != 4:
        raise QanetError("boxes have the wrong shape", expected="(N, 4) as x0 y0 x1 y1", got=array.shape)
    for index, (x0, y0, x1, y1) in enumerate(array.tolist()):
        if not all(abs(v) <= _MAX_COORDINATE_PX for v in (x0, y0, x1, y1)):
            what = "not finite" if not all(map(math.isfinite, (x0, y0, x1, y1))) else "far too large"
            raise QanetError(f"box {index} is {what}", expected="numbers in pixels", got=[x0, y0, x1, y1])
        if x1 <= x0 or y1 <= y0:
            raise QanetError(f"box {index} is empty", expected="x0 < x1 and y0 < y1", got=[x0, y0, x1, y1])
        if image_hw is not None:
            height, width = image_hw
            if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
                raise QanetError(
                    f"box {index} lies wholly outside the image",
                    expected=f"a box touching {width}x{height} pixels",
                    got=[x0, y0, x1, y1],
                    next_command="give boxes as x0 y0 x1 y1 in pixels of this image",
                )
    if image_hw is not None and min(image_hw) > _TINY_PX and np.abs(array).max() <= _FRACTION:
        raise QanetError(
            "the boxes are within one pixel",
            expected=f"x0 y0 x1 y1 in pixels of {image_hw[1]}x{image_hw[0]}",
            got=array[0].tolist(),
            next_command="multiply boxes in 0..1 by the width and the height of the image",
        )
    return array


def crop_boxes(boxes: ArrayLike, crop_hw: tuple[int, int], scale: float = CROP_SCALE) -> NDArray[np.float32]:
    """Grow person boxes to the crop's aspect, then by `scale` about the centre.

    Args:
        boxes: (N, 4) xyxy pixels.
        crop_hw: network input (H, W) pixels; only its aspect matters.
    Returns:
        (N, 4) float32 xyxy pixels; may reach outside the image.

    >>> crop_boxes([[0, 0, 30, 80]], crop_hw=(256, 192)).tolist()  # 30x80 -> 60x80 (3:4) -> 75x100
    [[-22.5, -10.0, 52.5, 90.0]]
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    width, height = (boxes[:, 2:] - boxes[:, :2]).T
    aspect = crop_hw[1] / crop_hw[0]  # W / H
    width, height = np.maximum(width, height * aspect), np.maximum(height, width / aspect)
    half = np.stack([width, height], 1) * (scale / 2)
    return np.concatenate([centre - half, centre + half], 1).astype(np.float32)


def check_label_bytes(grown: NDArray[np.float32], image_hw: tuple[int, ...]) -> None:
    """QanetError for boxes whose label maps, a byte per image pixel below each crop, would fill the memory.

    Args:
        grown: (N, 4) xyxy pixels, of `crop_boxes`.
        image_hw: (H, W) pixels.

    >>> check_label_bytes(np.array([[0, 0, 640, 480]], np.float32), (480, 640))
    """
    corners = np.clip(grown.reshape(-1, 2, 2), 0, np.array(image_hw[::-1], np.float32)).astype(np.float64)
    total = float((corners[:, 1] - corners[:, 0]).prod(1).sum())
    if total > _MAX_LABEL_BYTES:
        raise QanetError(
            f"the label maps of {len(grown)} boxes are too large",
            expected=f"up to {_MAX_LABEL_BYTES / 2**30:g} GB in one image",
            got=f"{total / 2**30:.1f} GB",
            next_command="give fewer boxes at a time, or a smaller image",
        )


def box_to_image(box: ArrayLike, crop_hw: tuple[int, int]) -> NDArray[np.float64]:
    """(2, 3) affine: continuous crop coordinates (x, y) -> continuous image coordinates, for an upright box.

    >>> box_to_image([10, 20, 58, 84], crop_hw=(256, 192)).tolist()
    [[0.25, 0.0, 10.0], [0.0, 0.25, 20.0]]
    """
    x0, y0, x1, y1 = np.asarray(box, np.float64)
    return np.array([[(x1 - x0) / crop_hw[1], 0, x0], [0, (y1 - y0) / crop_hw[0], y0]])


def subsamples(crop_to_image: NDArray[np.float64]) -> tuple[int, int]:
    """Samples per crop pixel and axis (nx, ny): ceil of the shrink factor, as RoIAlign's adaptive sampling.

    >>> subsamples(box_to_image([0, 0, 400, 256], crop_hw=(256, 192)))
    (3, 1)
    """
    factor = np.hypot(crop_to_image[0, :2], crop_to_image[1, :2])  # image pixels per crop pixel, along x and y
    nx, ny = (int(min(max(math.ceil(f - 1e-6), 1), MAX_SUBSAMPLES)) for f in factor)
    return nx, ny


def resample(image: NDArray, crop_to_image: NDArray[np.float64], crop_hw: tuple[int, int]) -> NDArray[np.uint8]:
    """Resample an image to a crop: bilinear, box-averaged where it shrinks, zero outside the image.

    Each crop pixel is the mean of nx x ny bilinear samples, like RoIAlign with adaptive sampling. cv2 does both
    steps: a bilinear warp to the sample grid, then an exact box mean (INTER_AREA by a whole factor).

    Args:
        image: (H, W, 3) uint8.
        crop_to_image: (2, 3) affine of continuous coordinates, e.g. from `box_to_image`.
        crop_hw: (h, w) pixels of the crop.
    Returns:
        (h, w, 3) uint8.

    >>> image = np.full((100, 100, 3), 200, np.uint8)
    >>> crop = resample(image, box_to_image([50, 0, 150, 100], (64, 64)), (64, 64))
    >>> crop[32, 10].tolist(), crop[32, 50].tolist()  # inside the image, and outside
    ([200, 200, 200], [0, 0, 0])
    """
    import cv2

    nx, ny = subsamples(crop_to_image)
    grid_hw = (crop_hw[0] * ny, crop_hw[1] * nx)
    warped = cv2.warpAffine(
        image,
        _index_affine(crop_to_image, nx, ny),
        (grid_hw[1], grid_hw[0]),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=0,
    )
    if (nx, ny) == (1, 1):
        return warped
    return cv2.resize(warped, (crop_hw[1], crop_hw[0]), interpolation=cv2.INTER_AREA)


def resample_labels(
    labels: NDArray[np.uint8], crop_to_image: NDArray[np.float64], crop_hw: tuple[int, int], outside: int = 0
) -> NDArray[np.uint8]:
    """Nearest-neighbour counterpart of `resample` for a label map (H, W) uint8; `outside` fills beyond the image.

    >>> labels = np.full((100, 100), 4, np.uint8)
    >>> crop = resample_labels(labels, box_to_image([50, 0, 150, 100], (64, 64)), (64, 64), outside=255)
    >>> crop[32, [10, 50]].tolist()
    [4, 255]
    """
    import cv2

    return cv2.warpAffine(
        labels,
        _index_affine(crop_to_image, 1, 1),
        (crop_hw[1], crop_hw[0]),
        flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=outside,
    )


def crop_people(image: NDArray[np.uint8], boxes: NDArray[np.float32], crop_hw: tuple[int, int]) -> NDArray[np.uint8]:
    """All crops of one frame, resampled from crop boxes (N, 4): (N, h, w, 3) uint8, channels as in the image.

    >>> image = np.zeros((480, 640, 3), np.uint8)
    >>> crop_people(image, crop_boxes([[10, 20, 110, 220], [300, 50, 380, 300]], (256, 192)), (256, 192)).shape
    (2, 256, 192, 3)
    """
    crops = np.empty((len(boxes), *crop_hw, 3), np.uint8)
    for crop, box in zip(crops, boxes):
        crop[:] = resample(image, box_to_image(box, crop_hw), crop_hw)
    return crops


def _index_affine(crop_to_image: NDArray[np.float64], nx: int, ny: int) -> NDArray[np.float64]:
    """cv2 works on pixel indices (centre of pixel i is i): shift the continuous affine by half a sample."""
    affine = crop_to_image.copy()
    affine[:, 0] /= nx
    affine[:, 1] /= ny
    affine[:, 2] += 0.5 * (affine[:, 0] + affine[:, 1]) - 0.5
    return affine


def pairwise_iou(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """IoU of every box of a (N, 4) with every box of b (M, 4), xyxy; (N, M) float32.

    >>> pairwise_iou(np.array([[0, 0, 10, 10]]), np.array([[0, 0, 10, 5], [20, 0, 30, 10]])).tolist()
    [[0.5, 0.0]]
    """
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    overlap = np.clip(high - low, 0, None).prod(2)
    area_a, area_b = ((x[:, 2:] - x[:, :2]).prod(1) for x in (a, b))
    union = area_a[:, None] + area_b[None] - overlap
    return (overlap / np.maximum(union, 1e-9)).astype(np.float32)


def suppress(boxes: NDArray[np.float32], scores: NDArray[np.float32], iou_threshold: float) -> NDArray[np.intp]:
    """Greedy non-maximum suppression: indices of the boxes (N, 4) kept, best score first.

    >>> boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10]], np.float32)
    >>> suppress(boxes, np.array([0.5, 0.9, 0.3], np.float32), iou_threshold=0.6).tolist()
    [1, 2]
    """
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    overlaps = pairwise_iou(boxes, boxes)
    for index in order:
        if not kept or overlaps[index, kept].max() <= iou_threshold:
            kept.append(int(index))
    return np.array(kept, np.intp)


def letterboxed(
    image: NDArray[np.uint8], input_hw: tuple[int, int], resize: Resize | None = None
) -> tuple[NDArray[np.uint8], float]:
    """An image in its own aspect at the top left of a grey (H, W, 3) canvas, and the factor it was scaled by.

    Averaged where it shrinks, as the network saw it in training: a person of a large frame is a few cells, and
    bilinear sampling alone would leave out most of its pixels.

    Args:
        resize: image, rows and columns to the image at that size; None: OpenCV's, `resized`.

    >>> canvas, scale = letterboxed(np.zeros((540, 960, 3), np.uint8), input_hw=(320, 512))
    >>> canvas.shape, canvas[300, 0].tolist(), round(scale, 3)
    ((320, 512, 3), [114, 114, 114], 0.533)
    """
    height, width = input_hw
    ratio = min(height / image.shape[0], width / image.shape[1])
    columns, rows = max(1, int(image.shape[1] * ratio + 1e-6)), max(1, int(image.shape[0] * ratio + 1e-6))
    canvas = np.full((height, width, 3), _GREY, np.uint8)
    canvas[:rows, :columns] = (resize or resized)(image, rows, columns)
    return canvas, ratio


def resized(image: NDArray[np.uint8], rows: int, columns: int) -> NDArray[np.uint8]:
    """An image at another size, nearly as good as the average over areas at a fraction of the time.

    Means of 2x2 pixels are fast. They shrink the image to less than four times the wanted size; bilinear sampling,
    which leaves out no pixel while it shrinks to more than half, takes it to the double, and one more mean to the size.
    An odd last row or column of a large image is left out on the way.

    >>> resized(np.full((480, 640, 3), 7, np.uint8), rows=48, columns=64).shape
    (48, 64, 3)
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
