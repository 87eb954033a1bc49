"""Images of any kind as (H, W, 3) uint8 BGR, and readable errors for files that are not images."""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.errors import QanetError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
MAX_SIDE_PX = 32766  # OpenCV warps no larger image
_LOG_LEVEL = threading.Lock()  # OpenCV's log level is one for the process; several threads decode and encode


def as_bgr(image: NDArray) -> NDArray[np.uint8]:
    """Grey, grey with alpha, BGRA and 16-bit images as (H, W, 3) uint8 BGR; BGR uint8 is returned as it is.

    Floats are taken as 0..1. 16-bit values keep their upper byte.

    Raises:
        QanetError: not an image's shape or type.

    >>> as_bgr(np.full((2, 2), 0.5)).tolist()  # grey, 0..1
    [[[128, 128, 128], [128, 128, 128]], [[128, 128, 128], [128, 128, 128]]]
    """
    array = np.asarray(image)
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 2, 3, 4) or 0 in array.shape:
        raise QanetError("this is not an image", expected="(H, W), or (H, W, 1..4)", got=np.shape(image))
    if max(array.shape[:2]) > MAX_SIDE_PX:
        raise QanetError("the image is too large", expected=f"sides up to {MAX_SIDE_PX} pixels", got=array.shape[:2])
    if array.dtype == np.uint16:
        array = (array >> 8).astype(np.uint8)
    elif array.dtype == np.bool_:
        array = array.astype(np.uint8) * np.uint8(255)
    elif array.dtype.kind == "f":
        array = (np.clip(np.nan_to_num(array), 0, 1) * 255 + 0.5).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise QanetError("an image of this type is not known", expected="uint8, uint16, bool or float", got=array.dtype)
    if array.shape[2] in (1, 2):  # grey, grey + alpha
        array = np.repeat(array[:, :, :1], 3, axis=2)
    return np.ascontiguousarray(array[:, :, :3])


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read a picture file as BGR.

    Raises:
        QanetError: missing, empty, truncated beyond use, or not a picture.
    """
    if not path.is_file():
        raise QanetError(f"no file {path}", next_command="qanet parse INPUT [OUTPUT] --model NAME")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise QanetError(f"{path} cannot be read", got=error.strerror) from error
    return decode_image(data, str(path))


def decode_image(data: bytes, name: str = "the file") -> NDArray[np.uint8]:
    """Decode the bytes of a picture file as (H, W, 3) uint8 BGR, turned as its EXIF orientation says.

    Args:
        name: of the file, for errors.
    Raises:
        QanetError: empty, truncated beyond use, or not a picture.
    """
    import cv2

    if not data:
        raise QanetError(f"{name} is empty", expected="a picture", got="0 bytes")
    if is_truncated(data):
        raise QanetError(f"{name} is truncated", expected="a picture with its end marker", got=f"{len(data)} bytes")
    try:
        with quiet_opencv():  # the colour flag turns the picture as its EXIF orientation says
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    except cv2.error as error:
        raise QanetError(f"{name} cannot be decoded", got=str(error).strip().splitlines()[-1]) from error
    if image is None:
        raise QanetError(
            f"{name} cannot be decoded",
            expected=f"a picture ({', '.join(s[1:] for s in IMAGE_SUFFIXES)})",
            got=f"{len(data)} bytes that start with {data[:4]!r}",
        )
    return as_bgr(image)


def open_image(image: Any, order: str = "auto") -> NDArray[np.uint8]:
    """A picture of any common kind as (H, W, 3) uint8 BGR.

    Args:
        image: a path; an open binary file; a PIL image (its EXIF orientation is applied); a NumPy array (H, W) or
            (H, W, 1..4); a torch tensor (C, H, W) or (H, W, C). uint8, uint16, bool, or float in 0..1.
        order: channels of an array or a tensor, "bgr" or "rgb"; "auto" takes BGR for arrays, as OpenCV gives them, and
            RGB for tensors, as PyTorch's readers give them. Files and PIL images know theirs.
    Raises:
        QanetError: not a picture, or an unknown order.

    >>> open_image(np.zeros((4, 6), bool)).shape
    (4, 6, 3)
    >>> open_image(np.full((2, 2, 3), (255, 0, 0), np.uint8), order="rgb")[0, 0].tolist()
    [0, 0, 255]
    """
    if order not in ("auto", "bgr", "rgb"):
        raise QanetError("unknown order of channels", expected="auto, bgr or rgb", got=order)
    if isinstance(image, (str, os.PathLike)):
        return read_image(Path(image))
    if hasattr(image, "read") and not hasattr(image, "shape"):
        return decode_image(image.read(), getattr(image, "name", "the file"))
    if hasattr(image, "getexif") and hasattr(image, "convert"):  # PIL
        from PIL import ImageOps

        turned = ImageOps.exif_transpose(image)
        return as_bgr(np.asarray(turned.convert("RGB"))[:, :, ::-1])
    if hasattr(image, "detach"):  # torch
        array = image.detach().cpu().numpy()
        if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] not in (1, 3, 4):
            array = array.transpose(1, 2, 0)
        order = "rgb" if order == "auto" else order
    else:
        array = np.asarray(image)
    frame = as_bgr(array)
    if order == "rgb" and array.ndim == 3 and array.shape[2] >= 3:
        frame = np.ascontiguousarray(frame[:, :, ::-1])
    return frame


def is_truncated(data: bytes) -> bool:
    """Whether a JPEG or PNG lacks its end: decoders fill the rest with grey, or print to stderr."""
    if data.startswith(b"\x89PNG"):
        return b"IEND" not in data
    if not data.startswith(b"\xff\xd8"):
        return False
    start = 2  # skip the segments before the picture: a thumbnail among them has an end marker of its own
    while start + 4 <= len(data) and data[start] == 0xFF and data[start + 1] != 0xDA:
        start += 2 + int.from_bytes(data[start + 2 : start + 4], "big")
    return data.find(b"\xff\xd9", start) < 0


@contextlib.contextmanager
def quiet_opencv() -> Iterator[None]:
    """Keep OpenCV and its FFmpeg from printing to stderr: the caller reports what went wrong in one line."""
    import cv2

    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # read when FFmpeg is first used
    with _LOG_LEVEL:
        before = cv2.utils.logging.getLogLevel()
        cv2.utils.logging.setLogLevel(0)
        try:
            yield
        finally:
            cv2.utils.logging.setLogLevel(before)
