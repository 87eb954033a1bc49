"""Files of a data set as arrays; every error names its file.

Safe to call from many threads.
"""

import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qanet.errors import QanetError, QanetWarning
from qanet.images import completed
from qanet.labels import IGNORE
from qanet.picture_files import is_truncated

_PNG = b"\x89PNG\r\n\x1a\n"
_GREY, _PALETTE = 0, 3  # colour types


def decode_photo(path: Path, label_hw: tuple[int, ...] | None = None) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 BGR of a JPEG, PNG or other picture that OpenCV reads, turned as its EXIF orientation says.

    Args:
        path: of the file.
        label_hw: (H, W) of its labels; a photograph that has this size as it is stored only, labelled by a program
            that ignores EXIF, is not turned.
    Raises:
        QanetError: missing, truncated or no picture.
    """
    import cv2

    image = _decode(path, cv2.IMREAD_COLOR, whole=_completed)
    if image is None:
        raise QanetError(f"broken image file {path}", expected="a whole JPEG or PNG", got=_state(path))
    if label_hw is not None and image.shape[:2] == tuple(label_hw)[::-1] != tuple(label_hw):
        stored = _decode(path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION, whole=_completed)
        return image if stored is None or stored.shape[:2] != tuple(label_hw) else stored
    return image


def _completed(data: bytes, path: Path) -> bytes:
    """A photograph that lacks its end marker alone, with one; empty where pixels are missing."""
    if data := completed(data):
        warnings.warn(f"{path} lacks its last bytes; its pixels are complete", QanetWarning, stacklevel=4)
    return data


def decode_ids(path: Path, deep: bool = False) -> NDArray[np.integer]:
    """(H, W) ids of a PNG, uint8, or with `deep` uint8 or uint16; a palette's colours do not matter.

    Raises:
        QanetError: missing, truncated, no picture, colours instead of ids, or more bits than expected.
    """
    import cv2

    ids = _decode(path, cv2.IMREAD_UNCHANGED, prepare=ids_of_png)
    depths = (np.uint8, np.uint16) if deep else (np.uint8,)
    if ids is None or ids.ndim != 2 or ids.dtype not in depths:
        got = _state(path) if ids is None else f"{ids.dtype} {ids.shape}"
        raise QanetError(
            f"broken label file {path}",
            expected=f"{'an 8- or 16-bit' if deep else 'an 8-bit'} one-channel PNG of ids",
            got=got,
        )
    return ids


def translate_ids(
    raw: NDArray[np.integer], lookup: NDArray[np.uint8], known: NDArray[np.bool_], path: Path
) -> NDArray[np.uint8]:
    """Raw ids -> class ids by a (256,) table; `known`, (256,) bool, are the ids that the label files may hold.

    Any other id is an error and not void: it means another label set, another class order or a damaged file, and a
    network would silently learn from what is left.

    Raises:
        QanetError: ids outside the set.
    """
    present = np.flatnonzero(np.bincount(raw.ravel(), minlength=256))
    strange = present[~known[present]].tolist()
    if strange:
        raise QanetError(
            f"{path} holds label ids outside the set",
            expected=f"0..{np.argmin(known) - 1}, or {IGNORE} for void",
            got=strange[:8],
            next_command="choose the --format and the label set that the files were made with",
        )
    return lookup[raw]


def require_size(what: str, expected_hw: tuple[int, ...], got_hw: tuple[int, ...]) -> None:
    """QanetError where two maps of one image have other sizes."""
    if tuple(expected_hw) != tuple(got_hw):
        raise QanetError(f"{what} differ in size", expected=tuple(expected_hw), got=tuple(got_hw))


def ids_of_png(data: bytes) -> tuple[bytes, int]:
    """A palette PNG as one of grey levels, so that a decoder returns indices instead of colours, and the level's step.

    Decoders stretch 1, 2 and 4 bits to 0..255: the step is the factor that an id was multiplied by. Other files pass
    as they are.
    """
    if not data.startswith(_PNG) or len(data) < 26 or data[25] not in (_GREY, _PALETTE):
        return data, 1
    step = 255 // (2 ** data[24] - 1) if data[24] < 8 else 1
    if data[25] == _GREY:
        return data, step
    header = b"IHDR" + data[16:25] + bytes([_GREY]) + data[26:29]
    kept = [_PNG, data[8:12], header, zlib.crc32(header).to_bytes(4, "big")]
    start = 33  # after the signature and IHDR
    while start + 12 <= len(data):
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        if data[start + 4 : start + 8] in (b"IDAT", b"IEND"):
            kept.append(data[start:end])
        start = end
    return b"".join(kept), step


def _decode(
    path: Path,
    flags: int,
    whole: Callable[[bytes, Path], bytes] = lambda data, path: b"",
    prepare: Callable[[bytes], tuple[bytes, int]] = lambda data: (data, 1),
) -> NDArray | None:
    """The pixels; None for what is none. `whole` gets a truncated file, and gives it with its end or nothing."""
    import cv2

    try:
        data = path.read_bytes()
    except OSError:
        return None
    if data and is_truncated(data):
        data = whole(data, path)
    if not data:
        return None
    data, step = prepare(data)
    try:
        array = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None
    return array if array is None or step == 1 else array // np.uint8(step)


def _state(path: Path) -> str:
    """Why a file could not be decoded, in a word or two."""
    if not path.is_file():
        return "no such file"
    try:
        data = path.read_bytes()
    except OSError as error:
        return error.strerror or "unreadable"
    if not data:
        return "0 bytes"
    return "truncated" if is_truncated(data) else "unreadable"
