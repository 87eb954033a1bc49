"""Images of any kind -> (H, W, 3) uint8 BGR, and readable errors for files that are none."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qanet.errors import QanetError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def as_bgr(image: NDArray) -> NDArray[np.uint8]:
    """Grey, grey with alpha, BGRA and 16-bit images as (H, W, 3) uint8 BGR; BGR uint8 passes as it is.

    Floats are taken as 0..1. 16-bit values keep their upper byte.

    Raises:
        QanetError: not an image's shape or type.
    """
    array = np.asarray(image)
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 2, 3, 4) or 0 in array.shape:
        raise QanetError("this is not an image", expected="(H, W), or (H, W, 1..4)", got=np.shape(image))
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
    import cv2

    if not path.is_file():
        raise QanetError(f"no file {path}", next_command="qanet parse INPUT [OUTPUT] --model NAME")
    data = path.read_bytes()
    if not data:
        raise QanetError(f"{path} is empty", expected="a picture", got="0 bytes")
    if path.suffix.lower() in (".jpg", ".jpeg") and b"\xff\xd9" not in data[-4096:]:
        raise QanetError(f"{path} is truncated", expected="a JPEG with its end marker", got=f"{len(data)} bytes")
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise QanetError(
            f"{path} cannot be decoded", expected=f"a picture ({', '.join(s[1:] for s in IMAGE_SUFFIXES)})",
            got=f"{len(data)} bytes that start with {data[:4]!r}",
        )  # fmt: skip
    return as_bgr(image)
