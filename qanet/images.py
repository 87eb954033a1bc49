"""Images of any kind as (H, W, 3) uint8 BGR, and readable errors for what is no image.

OpenCV decodes JPEG, PNG, BMP, WebP, TIFF, GIF, JPEG 2000, AVIF and Netpbm files, PyAV decodes TGA. The orientation that
a camera wrote (EXIF; irot and imir of AVIF) is applied. The colour profile is not.
"""

import contextlib
import os
import re
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.errors import QanetError, QanetWarning
from qanet.picture_files import (
    EOI,
    HEAD_BYTES,
    IEND,
    PNG,
    READ,
    count_pictures,
    is_truncated,
    picture_kind,
    png_chunks,
    tiff_pages,
)
from qanet.quiet import decoding_quietly

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")  # that are written as well
MAX_SIDE_PX = 32766  # OpenCV warps no larger image
Warn = Callable[[str], object]
_OVERSHOOT = 0.5  # beside 0..1, by which bicubic interpolation and the like leave the range


def as_bgr(image: NDArray) -> NDArray[np.uint8]:
    """Grey, grey with alpha, BGRA and 16-bit images as (H, W, 3) uint8 BGR; BGR uint8 is returned as it is.

    Floats are 0..1; what interpolation added beside it is cut. 16-bit values keep their upper byte.

    Raises:
        QanetError: not an image's shape or type, or floats of another range, such as 0..255.

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
    if array.dtype.newbyteorder("=") == np.uint16:
        array = (array >> 8).astype(np.uint8)
    elif array.dtype == np.bool_:
        array = array.astype(np.uint8) * np.uint8(255)
    elif array.dtype.kind == "f":
        low, high = float(array.min()), float(array.max())
        if not (low >= -_OVERSHOOT and high <= 1 + _OVERSHOOT):  # nor NaN
            raise QanetError(
                "an image of floats has another range than 0..1",
                expected="floats in 0..1, or uint8 in 0..255",
                got=f"{low:g}..{high:g}",
                next_command="divide it by its white level, or give image.astype(np.uint8)",
            )
        array = (np.clip(array, 0, 1) * 255 + 0.5).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise QanetError("an image of this type is not known", expected="uint8, uint16, bool or float", got=array.dtype)
    if array.shape[2] in (1, 2):  # grey, grey + alpha
        array = np.repeat(array[:, :, :1], 3, axis=2)
    return np.ascontiguousarray(array[:, :, :3])


def open_image(image: Any, order: str = "auto") -> NDArray[np.uint8]:
    """A picture of any common kind as (H, W, 3) uint8 BGR.

    Args:
        image: a path; an open binary file; a PIL image of any mode (its EXIF orientation is applied); a NumPy array
            (H, W) or (H, W, 1..4); a torch tensor (C, H, W) or (H, W, C). uint8, uint16, bool, or float in 0..1.
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
        return _read_open_file(image)
    try:
        if isinstance(getattr(image, "mode", None), str):
            array, order = _pil_array(image)
        elif hasattr(image, "detach"):
            array, order = _tensor_array(image), "rgb" if order == "auto" else order
        else:
            array = np.asarray(image)
    except QanetError:
        raise
    except Exception as error:  # whatever a foreign object raises while it is read
        kind = f"{type(image).__module__}.{type(image).__name__}"
        raise QanetError("this cannot be read as an image", expected=_TAKEN, got=f"{kind}: {error}") from error
    frame = as_bgr(array)
    if order == "rgb" and array.ndim == 3 and array.shape[2] >= 3:
        frame = np.ascontiguousarray(frame[:, :, ::-1])
    return frame


_TAKEN = "a path, an open file, a PIL image, an array or a tensor"


def _read_open_file(file: Any) -> NDArray[np.uint8]:
    name = str(getattr(file, "name", "the file"))
    try:
        data = file.read()
    except (OSError, ValueError) as error:
        raise QanetError(f"{name} cannot be read", got=error) from error
    if not isinstance(data, bytes):
        raise QanetError(
            f"{name} gives no bytes", expected='a file opened by open(path, "rb")', got=type(data).__name__
        )
    return decode_image(data, name)


def _tensor_array(tensor: Any) -> NDArray[Any]:
    """A torch tensor as (H, W) or (H, W, C); bfloat16, which NumPy does not have, as float32."""
    given = tensor.detach().cpu()
    try:
        array = np.asarray(given.numpy())
    except TypeError:
        array = np.asarray(given.float().numpy())
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] not in (1, 3, 4):
        array = array.transpose(1, 2, 0)
    return array


_PLAIN_MODES = ("1", "L", "LA", "RGB", "RGBA", "I;16", "I;16B", "I;16L", "I;16N")


def _pil_array(image: Any) -> tuple[NDArray[Any], str]:
    """A PIL image, turned as its EXIF orientation says, and the order of its channels.

    As in Pillow, 255 is white in F and I; an I with larger values is a picture of 16 bits, an F within 0..1 is one of
    that range.
    """
    if hasattr(image, "getexif") and hasattr(image, "convert"):
        from PIL import ImageOps

        image = ImageOps.exif_transpose(image)
    if image.mode not in (*_PLAIN_MODES, "I", "F"):  # colours that NumPy does not see: a palette, CMYK, HSV
        if not hasattr(image, "convert"):
            raise QanetError(f"an image of mode {image.mode} holds no colours", expected="mode RGB", got=image.mode)
        image = image.convert("RGBA" if image.mode == "RGBa" else "RGB")
    array = np.asarray(image)
    if array.size and (array.dtype.kind == "i" or (image.mode == "F" and array.max() > 1 + _OVERSHOOT)):
        white = 65535 if image.mode == "I" and array.max() > 255 else 255
        if not (array.min() >= 0 and array.max() <= white):
            got = f"{array.min():g}..{array.max():g}"
            raise QanetError(f"an image of mode {image.mode} has another range", expected=f"0..{white}", got=got)
        array = array.astype(np.uint16 if white > 255 else np.uint8)
    return array, "rgb"


def read_image(path: Path, warn: Warn | None = None) -> NDArray[np.uint8]:
    """Read a picture file as (H, W, 3) uint8 BGR.

    Args:
        warn: takes each warning, see `decode_image`.
    Raises:
        QanetError: missing, empty, truncated beyond use, or not a picture.
    """
    if not path.is_file():
        raise QanetError(f"no file {path}", next_command="qanet parse INPUT [OUTPUT] --model NAME")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise QanetError(f"{path} cannot be read", got=error.strerror) from error
    return decode_image(data, str(path), warn)


def decode_image(data: bytes, name: str = "the file", warn: Warn | None = None) -> NDArray[np.uint8]:
    """Decode the bytes of a picture file as (H, W, 3) uint8 BGR, turned as its camera says.

    Args:
        name: of the file, for errors.
        warn: takes a line of text for a picture without its last bytes, a damaged one, and one of several; None:
            `warnings.warn` with a QanetWarning.
    Raises:
        QanetError: empty, truncated beyond use, or not a picture.
    """
    warn = warn or (lambda text: warnings.warn(text, QanetWarning, stacklevel=4))
    if not data:
        raise QanetError(f"{name} is empty", expected="a picture", got="0 bytes")
    kind = picture_kind(data[:HEAD_BYTES], Path(name).suffix)
    if kind == "tiff" and next(tiff_pages(data), 0) & 1:
        raise QanetError(
            f"{name} begins with a thumbnail",
            expected=READ,
            got="a raw photograph",
            next_command="export it as JPEG from the program of the camera",
        )
    whole = data
    if is_truncated(data):
        whole = completed(data)
        if not whole:
            raise QanetError(f"{name} is truncated", expected="a picture with its end marker", got=f"{len(data)} bytes")
        warn(f"{name} lacks its last bytes; its pixels are complete")
    image, complaints = _pixels(whole, kind, name)
    if image is None:
        raise QanetError(
            f"{name} cannot be decoded",
            expected=READ,
            got="a HEIC picture" if kind == "heic" else f"{len(data)} bytes that start with {data[:4]!r}",
            next_command=f"convert it: heif-convert {name} {Path(name).stem}.jpg" if kind == "heic" else None,
        )
    if damage := next((line for line in complaints if line.startswith(("Corrupt JPEG", "Premature end"))), None):
        warn(f"{name} is damaged and was read as far as possible: {damage}")
    if (count := count_pictures(data, kind)) > 1:
        several = "several" if kind == "avif" else str(count)
        warn(f"{name} holds {several} pictures, the first was read; split it into files to have all of them")
    return image


def completed(data: bytes) -> bytes:
    """A JPEG or PNG without its end marker, with one; empty where pixels are missing too.

    Whether a JPEG has all its pixels shows when bytes are added: they change the picture where some are missing.
    """
    if data.startswith(PNG):
        chunks = png_chunks(data)
        inflate = zlib.decompressobj()
        try:
            for start, end in chunks:
                if data[start + 4 : start + 8] == b"IDAT":
                    inflate.decompress(data[start + 8 : end - 4])
        except zlib.error:
            return b""
        return data[: chunks[-1][1]] + IEND if chunks and inflate.eof else b""
    import cv2

    body, seen = data.removesuffix(b"\xff"), []
    with decoding_quietly(), contextlib.suppress(cv2.error):
        seen = [_opencv(body + filler * 64 + EOI, colour=True) for filler in (b"\x55", b"\xaa")]
    whole = len(seen) == 2 and seen[0] is not None and seen[1] is not None and np.array_equal(seen[0], seen[1])
    return body + EOI if whole else b""


def _pixels(data: bytes, kind: str | None, name: str) -> tuple[NDArray[np.uint8] | None, list[str]]:
    """The picture, and what the libraries had to say about it."""
    import cv2

    try:
        with decoding_quietly() as complaints:
            if kind == "tga":
                array = _targa(data)
            elif kind == "heic":
                array = None  # of a grid of tiles, as phones write it, a decoder may give the first tile alone
            else:
                plain = kind in ("avif", "jp2")  # their 10 or 12 bits are 16 elsewhere, 8 here
                array = _opencv(data, colour=True, any_depth=not plain, stored=kind == "avif")
                if array is None and kind in ("tiff", "pnm"):  # one channel of floats
                    array = _opencv(data, colour=False)
                if kind == "pnm" and re.match(rb"P7\s(?:[^\n]*\n)*?MAXVAL\s+1\s", data[:4096]):
                    array = None  # OpenCV takes its bytes for bits
                if array is None and kind == "pnm" and data[1:2] in b"123":
                    array = _opencv(data + b"\n", colour=True, any_depth=True)
    except cv2.error as error:
        raise QanetError(f"{name} cannot be decoded", got=str(error).strip().splitlines()[-1]) from error
    if array is None:
        return None, complaints
    if kind == "pnm":
        array = _of_range(array, data)
    if kind == "avif":
        array = _turned_avif(array, data)
    try:
        return as_bgr(array), complaints
    except QanetError as error:
        next_command = "convert it to 8 or 16 bits" if array.dtype.kind in "fi" else None
        raise QanetError(
            f"{name}: {error.fact}", expected=error.expected, got=error.got, next_command=next_command
        ) from error


def _opencv(data: bytes, colour: bool, any_depth: bool = False, stored: bool = False) -> NDArray[Any] | None:
    import cv2

    flags = cv2.IMREAD_COLOR if colour else cv2.IMREAD_UNCHANGED  # the colour flag turns as EXIF says
    flags |= (cv2.IMREAD_ANYDEPTH if any_depth else 0) | (cv2.IMREAD_IGNORE_ORIENTATION if stored else 0)
    return cv2.imdecode(np.frombuffer(data, np.uint8), flags)


def _targa(data: bytes) -> NDArray[np.uint8] | None:
    import av

    try:
        codec = av.CodecContext.create("targa", "r")
        frames = [*codec.decode(av.Packet(data)), *codec.decode(None)]
        return np.asarray(frames[0].to_ndarray(format="bgr24"), np.uint8) if frames else None
    except (av.error.FFmpegError, ValueError):
        return None


def _of_range(array: NDArray[Any], data: bytes) -> NDArray[Any]:
    """A Netpbm picture whose white is the file's own maxval, as 8 bits."""
    if data[1:2] == b"7":
        found = re.search(rb"^MAXVAL\s+(\d+)", data[:4096], re.MULTILINE)
    else:  # comments may stand between the numbers
        found = re.match(rb"P[2356](?:\s|#[^\n]*\n)+\d+(?:\s|#[^\n]*\n)+\d+(?:\s|#[^\n]*\n)+(\d+)", data[:4096])
    white = int(found[1]) if found else 0
    scaled = data[1:2] in b"23" and array.dtype == np.uint8  # OpenCV does it for numbers in text, and for no others
    if not 0 < white < 65535 or white == 255 or array.dtype.kind != "u" or scaled:
        return array
    return (np.minimum(array.astype(np.uint32), white) * 255 // white).astype(np.uint8)


def _turned_avif(array: NDArray[Any], data: bytes) -> NDArray[Any]:
    """Turned by irot (quarters against the clock), then mirrored by imir, as the file's `meta` box says."""
    if (at := data.find(b"\0\0\0\x09irot", 0, 1 << 16)) >= 0 and at + 8 < len(data):
        array = np.rot90(array, data[at + 8] & 3)
    if (at := data.find(b"\0\0\0\x09imir", 0, 1 << 16)) >= 0 and at + 8 < len(data):
        array = array[:, ::-1] if data[at + 8] & 1 else array[::-1]
    return array
