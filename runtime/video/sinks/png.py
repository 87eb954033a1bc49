"""PNGs whose pixels are numbers into a palette: OpenCV writes none."""

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

_LEVEL = 3  # of zlib: label maps are flat, more gains little


def indexed_png(labels: NDArray[np.uint8], colours_rgb: NDArray[np.uint8]) -> bytes:
    """A PNG of colour type 3, 8 bits a pixel.

    Args:
        labels: (H, W) uint8, each less than C.
        colours_rgb: (C, 3) uint8, C up to 256.
    """
    height, width = labels.shape
    rows = np.zeros((height, width + 1), np.uint8)  # a filter byte before each row: 0, none
    rows[:, 1:] = labels
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    chunks = (
        (b"IHDR", header),
        (b"PLTE", colours_rgb.tobytes()),
        (b"IDAT", zlib.compress(rows.tobytes(), _LEVEL)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in chunks)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
