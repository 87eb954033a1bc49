"""What a picture file is, by its bytes: its kind, how many pictures it holds, and whether it is whole."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

PICTURE_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("jpg", "jpeg", "jpe", "jfif", "png", "bmp", "webp", "tif", "tiff", "gif", "avif", "jp2", "tga"),
        *("ppm", "pgm", "pbm", "pnm", "pam", "pfm", "heic", "heif"),
    )
)
READ = "a JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF, JPEG 2000, PNM or TGA picture"
HEAD_BYTES = 64
_BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)  # bytes, by version
_BRANDS = {b"avif": "avif", b"avis": "avif"} | dict.fromkeys(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "heic"
)
SOI, EOI = b"\xff\xd8\xff", b"\xff\xd9"
PNG, IEND = b"\x89PNG\r\n\x1a\n", b"\0\0\0\0IEND\xaeB\x60\x82"
_MAX_PAGES = 100_000


def picture_kind(data: bytes, suffix: str = "") -> str | None:
    """The kind of a picture file by its first bytes; None if it is none that is known.

    TGA has no mark of its own, so its suffix counts too.

    >>> picture_kind(b"GIF89a"), picture_kind(b"P6 4 4 255 "), picture_kind(b"hello")
    ('gif', 'pnm', None)
    """
    for start, kind in ((SOI, "jpeg"), (PNG, "png"), (b"GIF87a", "gif"), (b"GIF89a", "gif")):
        if data.startswith(start):
            return kind
    if data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "tiff"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data.startswith((b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")):
        return "jp2"
    if data[:2] == b"BM" and data[6:10] == bytes(4) and int.from_bytes(data[14:18], "little") in _BMP_HEADERS:
        return "bmp"
    if re.match(rb"P[1-7fF]\s", data):
        return "pnm"
    if data[4:8] == b"ftyp":
        end = min(int.from_bytes(data[:4], "big"), HEAD_BYTES)
        kinds = {_BRANDS.get(data[at : at + 4]) for at in (8, *range(16, end, 4))}
        return "avif" if "avif" in kinds else "heic" if "heic" in kinds else None
    if suffix.lower() == ".tga" and len(data) >= 18 and data[1] in (0, 1) and data[2] in (1, 2, 3, 9, 10, 11):
        return "tga"
    return None


def kind_of_file(path: Path) -> str | None:
    """`picture_kind` of a file; None for one that cannot be read."""
    try:
        with path.open("rb") as file:
            return picture_kind(file.read(HEAD_BYTES), path.suffix)
    except OSError:
        return None


def natural_key(name: str) -> tuple[list[tuple[int, str]], str]:
    """Sorts names as people count: frame2 before frame10.

    >>> sorted(["frame10.png", "frame9.png", "Frame1.png"], key=natural_key)
    ['Frame1.png', 'frame9.png', 'frame10.png']
    """
    words = re.split(r"([0-9]+)", name.casefold())
    return [(int(word), "") if word[:1].isdecimal() and word.isascii() else (-1, word) for word in words], name


def pictures_of(folder: Path) -> tuple[list[Path], list[Path]]:
    """The pictures of a folder, and what else lies in it, both in natural order; hidden files are neither.

    A picture is told by its content, or by its suffix: a broken one is met when it is read.
    """
    entries = sorted((p for p in folder.iterdir() if not p.name.startswith(".")), key=lambda p: natural_key(p.name))
    pictures = [
        p for p in entries if p.is_file() and (p.suffix.lower() in PICTURE_SUFFIXES or kind_of_file(p) is not None)
    ]
    chosen = set(pictures)
    return pictures, [p for p in entries if p not in chosen]


def count_pictures(data: bytes, kind: str | None) -> int:
    """How many pictures a file holds: pages, frames of an animation, JPEGs in a row; 1 where the kind has no more."""
    try:
        if kind == "gif":
            return _gif_frames(data)
        if kind == "tiff":
            return max(1, sum(1 for subfile in tiff_pages(data) if not subfile & 0b101))  # no overviews, no masks
        if kind == "png" and (at := data.find(b"acTL", 0, data.find(b"IDAT"))) >= 0:
            return max(1, int.from_bytes(data[at + 4 : at + 8], "big"))
        if kind == "webp" and data[12:16] == b"VP8X" and data[20] & 2:
            return max(1, _riff_chunks(data).count(b"ANMF"))
        if kind == "avif" and b"avis" in data[8:32]:
            return 2  # or more: the count lies deep in the file
        if kind == "jpeg" and b"MPF\0" not in data[:4096]:  # MPF: previews of one picture
            return 1 + data.count(EOI + SOI)
    except IndexError:  # a broken file: its decoder says what is wrong
        return 1
    return 1


def is_truncated(data: bytes) -> bool:
    """Whether a JPEG or PNG lacks its end: decoders fill the rest with grey, or print to stderr."""
    if data.startswith(b"\x89PNG"):
        return IEND[4:] not in data
    if not data.startswith(b"\xff\xd8"):
        return False
    start = 2  # skip the segments before the picture: a thumbnail among them has an end marker of its own
    while start + 4 <= len(data) and data[start] == 0xFF and data[start + 1] != 0xDA:
        start += 2 + int.from_bytes(data[start + 2 : start + 4], "big")
    return data.find(EOI, start) < 0


def png_chunks(data: bytes) -> list[tuple[int, int]]:
    """(start, end) of the whole chunks."""
    chunks, start = [], len(PNG)
    while (end := start + 12 + int.from_bytes(data[start : start + 4], "big")) <= len(data) and start + 12 <= end:
        chunks.append((start, end))
        start = end
    return chunks


def _riff_chunks(data: bytes) -> list[bytes]:
    names, at = [], 12
    while at + 8 <= len(data):
        names.append(data[at : at + 4])
        at += 8 + (int.from_bytes(data[at + 4 : at + 8], "little") + 1) // 2 * 2
    return names


def _gif_frames(data: bytes) -> int:
    def table(flags: int) -> int:
        return 3 << ((flags & 7) + 1) if flags & 0x80 else 0

    frames, at = 0, 13 + table(data[10])
    while at < len(data) and data[at] in b"!,":
        if data[at] == 0x2C:
            frames, at = frames + 1, at + 11 + table(data[at + 9])  # and the size of the codes
        else:
            at += 2
        while data[at]:  # blocks, each with its length in front
            at += 1 + data[at]
        at += 1
    return max(1, frames)


def tiff_pages(data: bytes) -> Iterator[int]:
    """The NewSubfileType of each page, in order."""
    order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"
    big = data[2:4] in (b"+\0", b"\0+")
    wide, count_bytes, entry = (8, 8, 20) if big else (4, 2, 12)

    def number(at: int, size: int) -> int:
        return int.from_bytes(data[at : at + size], order)

    at, seen = number(8 if big else 4, wide), set[int]()
    while at and at + count_bytes <= len(data) and at not in seen and len(seen) < _MAX_PAGES:
        seen.add(at)
        count = min(number(at, count_bytes), 4096)
        first = at + count_bytes
        tags = {number(first + entry * k, 2): first + entry * k for k in range(min(count, 8))}  # they are sorted
        yield number(tags[254] + 4 + wide, 4 if number(tags[254] + 2, 2) == 4 else 2) if 254 in tags else 0
        at = number(first + entry * count, wide)
