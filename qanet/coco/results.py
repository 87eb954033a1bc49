"""COCO and LVIS results, and the mask probabilities that come with them: streamed, so files of any size can be read.

A results file is one JSON array of {"image_id", "category_id", "score", "bbox": [x, y, width, height], "segmentation"}.

A probability map is (h, w) foreground probabilities after the sigmoid, of the class of the result, laid over `bbox`:
row 0 at its top, column 0 at its left, as every Mask R-CNN computes it before it pastes the mask into the image (28x28,
mostly). Two carriers:

- an .npz file with one array `mask_probabilities` (N, h, w), in the order of the results; float16, float32 or float64
  in [0, 1], or uint8 with 255 for 1;
- a key `mask_probabilities` in each result: nested lists of numbers, or
  {"size": [h, w], "dtype": "uint8" | "float16" | "float32", "data": base64 of the numbers row by row, little-endian}.
"""

import base64
import binascii
import json
import math
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from qanet.errors import QanetError
from qanet.files import written

Result = dict[str, Any]

_CHUNK_CHARS = 1 << 20
_REQUIRED = ("image_id", "category_id", "score")
_FORM = '[{"image_id": ..., "category_id": ..., "bbox": [x, y, w, h], "segmentation": ..., "score": ...}, ...]'
ARRAY = "mask_probabilities"  # the array's name in the .npz, and the key in a result
_TYPES = {"uint8": "u1", "float16": "<f2", "float32": "<f4", "float64": "<f8"}
_BLOCK_MAPS = 512  # maps of an .npz that are in memory at once
_EXPECTED = f"an array {ARRAY} (N, h, w), uint8 or float16/32/64 in [0, 1]"


def stream_results(path: Path) -> Iterator[Result]:
    """The results of a file in its order, each checked as it is reached.

    Raises:
        QanetError: not a JSON array, cut short, or an entry that is no result, by its place in the file.
    """
    for index, entry in enumerate(_stream_array(path)):
        if not isinstance(entry, dict):
            raise QanetError(f"{path}: entry {index} is no result", expected="an object", got=type(entry).__name__)
        missing = [key for key in _REQUIRED if key not in entry]
        if missing:
            raise QanetError(
                f"{path}: result {index} has no {missing[0]!r}", expected=", ".join(_REQUIRED), got=", ".join(entry)
            )
        unit_interval(entry["score"], f"{path}: result {index}: score")
        yield entry


def unit_interval(value: Any, name: str) -> float:
    """`value` as a float; QanetError with `name` unless it is a number in [0, 1]."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise QanetError(f"{name} is out of range", expected="a number in [0, 1]", got=value)
    return float(value)


def xyxy(result: Result, name: str) -> tuple[float, float, float, float]:
    """A result's `bbox` as x0 y0 x1 y1 pixels; QanetError with `name` unless it is four finite numbers, sides >= 0."""
    box = result.get("bbox")
    if (
        not isinstance(box, list)
        or len(box) != 4
        or not all(isinstance(v, (int, float)) and math.isfinite(v) for v in box)
        or min(box[2:]) < 0
    ):
        raise QanetError(f"{name} has no usable bbox", expected="[x, y, width, height] in pixels", got=box)
    x, y, width, height = (float(v) for v in box)
    return x, y, x + width, y + height


def write_results(path: Path, results: Iterable[Result]) -> int:
    """Write results as one JSON array, one per line, whole or not at all; returns their number.

    The same results always give the same bytes.
    """
    count = 0
    with written(path) as file:
        file.write(b"[")
        for result in results:
            text = json.dumps(result, separators=(",", ":"), allow_nan=False)
            file.write((",\n" if count else "\n").encode() + text.encode())
            count += 1
        file.write(b"\n]\n")
    return count


def _stream_array(path: Path) -> Iterator[Any]:
    """The elements of a file that is one JSON array."""
    if not path.is_file():
        raise QanetError(f"no file {path}", expected="COCO or LVIS results", got="nothing")
    decoder = json.JSONDecoder()
    with path.open(encoding="utf-8") as file:
        text, at, before = "", 0, "start"  # what came before: the start, "[", a value, or ","
        while True:
            at = _skip_space(text, at)
            if at == len(text):
                text, at = _more(file, path, "", before), 0
                continue
            character = text[at]
            if before == "start":
                if character != "[":
                    raise QanetError(f"{path} is no results file", expected=_FORM, got=f"{text[at : at + 40]}...")
                at, before = at + 1, "["
            elif character == "]" and before != ",":
                return
            elif before == "value":
                if character != ",":
                    raise QanetError(f"{path} is not JSON", expected="',' or ']'", got=text[at : at + 40])
                at, before = at + 1, ","
            else:
                try:
                    value, at = decoder.raw_decode(text, at)
                except json.JSONDecodeError as error:  # most likely the end of what was read so far
                    text, at = _more(file, path, text[at:], before, error), 0
                    continue
                before = "value"
                yield value


def _skip_space(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _more(file: Any, path: Path, rest: str, before: str, error: Exception | None = None) -> str:
    """`rest` and as much again from the file, so that a long entry is not parsed too often."""
    try:
        piece = file.read(max(_CHUNK_CHARS, len(rest)))
    except UnicodeDecodeError as broken:
        raise QanetError(f"{path} is not text", expected="JSON in UTF-8", got=broken.reason) from broken
    if not piece:
        if before == "start":
            raise QanetError(f"{path} is empty", expected=_FORM, got="nothing")
        fact = f"{path} ends in the middle or is not JSON"
        raise QanetError(fact, expected="a closing ]", got=error or "the end of the file")
    return rest + piece


def count_maps(path: Path) -> int:
    """The number of maps in an .npz, from its header alone."""
    return _header(path)[0]


def stream_maps(path: Path) -> Iterator[NDArray[np.float32]]:
    """The maps of an .npz in its order, (h, w) float32 in [0, 1] each, a block of them in memory at a time.

    Raises:
        QanetError: not such a file, cut short, or a number that is no probability, by the map's place.
    """
    count, height, width = _header(path)
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{ARRAY}.npy") as file:
            _, dtype = _read_header(file)
            map_bytes = height * width * dtype.itemsize
            for start in range(0, count, _BLOCK_MAPS):
                number = min(_BLOCK_MAPS, count - start)
                data = file.read(number * map_bytes)
                if len(data) != number * map_bytes:
                    raise QanetError(f"{path} is cut short", expected=f"{count} maps", got=f"an end in map {start}")
                block = np.frombuffer(data, dtype).reshape(number, height, width)
                for index, raw in enumerate(block):
                    yield as_probabilities(raw, f"{path}: map {start + index}")
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise QanetError(f"{path} cannot be read", expected=_EXPECTED, got=error) from error


def inline_map(value: Any, name: str) -> NDArray[np.float32]:
    """A result's `mask_probabilities` as (h, w) float32 in [0, 1]; QanetError, with `name`, for anything else."""
    if isinstance(value, dict):
        return as_probabilities(_packed(value, name), name)
    try:
        raw = np.asarray(value, np.float32)
    except (TypeError, ValueError) as error:
        raise QanetError(f"{name} are not numbers", expected="rows of equal length", got=repr(value)[:60]) from error
    return as_probabilities(raw, name)


def pack_map(probabilities: NDArray[np.floating]) -> dict[str, Any]:
    """(h, w) probabilities as the compact inline form, in uint8."""
    grey = np.rint(np.asarray(probabilities, np.float64) * 255).astype(np.uint8)
    return {"size": list(grey.shape), "dtype": "uint8", "data": base64.b64encode(grey.tobytes()).decode("ascii")}


def as_probabilities(raw: NDArray, name: str) -> NDArray[np.float32]:
    """(h, w) uint8 or floats as float32 in [0, 1]; QanetError, with `name`, for nan or numbers outside."""
    if raw.ndim != 2 or not raw.size:
        raise QanetError(f"{name} has the wrong shape", expected="(h, w) of 1 or more", got=raw.shape)
    if raw.dtype == np.uint8:
        return np.asarray(raw / np.float32(255), np.float32)
    values = np.ascontiguousarray(raw, np.float32)
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):
        got = f"{int(np.isnan(values).sum())} nan" if math.isnan(low) else f"{low:g} to {high:g}"
        raise QanetError(f"{name} holds no probabilities", expected="0 to 1, after the sigmoid", got=got)
    return values


def _packed(value: dict[str, Any], name: str) -> NDArray:
    size, data, kind = value.get("size"), value.get("data"), _TYPES.get(str(value.get("dtype")))
    if (
        not isinstance(size, list)
        or len(size) != 2
        or not all(type(v) is int and v > 0 for v in size)
        or not isinstance(data, str)
        or kind is None
    ):
        got = json.dumps({key: value.get(key) for key in ("size", "dtype")})
        raise QanetError(f"{name} are not in a known form", expected='{"size": [h, w], "dtype", "data"}', got=got)
    try:
        numbers = np.frombuffer(base64.b64decode(data, validate=True), kind)
    except (binascii.Error, ValueError) as error:
        raise QanetError(f"{name} are not base64 of whole numbers", expected=value["dtype"], got=error) from error
    if numbers.size != math.prod(size):
        raise QanetError(f"{name} have another count than their size", expected=math.prod(size), got=numbers.size)
    return numbers.reshape(size)


def _header(path: Path) -> tuple[int, int, int]:
    """(N, h, w) of the array in an .npz."""
    if not path.is_file():
        raise QanetError(f"no file {path}", expected=f"an .npz with {_EXPECTED}", got="nothing")
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            if ARRAY not in names:
                raise QanetError(f"{path} has no array {ARRAY}", expected=_EXPECTED, got=", ".join(names) or "nothing")
            with archive.open(f"{ARRAY}.npy") as file:
                shape, dtype = _read_header(file)
    except (zipfile.BadZipFile, EOFError, OSError, ValueError) as error:
        raise QanetError(f"{path} is not an .npz file", expected=_EXPECTED, got=error) from error
    if len(shape) != 3 or dtype.name not in _TYPES or 0 in shape[1:]:
        raise QanetError(f"{path}: {ARRAY} does not fit", expected=_EXPECTED, got=f"{dtype} {shape}")
    return shape[0], shape[1], shape[2]


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type at the head of an .npy stream, which is left at the first number; nothing is unpickled."""
    version = npy.read_magic(file)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, column_major, dtype = read(file)
    if column_major and len(shape) > 1:
        raise ValueError("the array is stored column by column; save numpy.ascontiguousarray(...) of it")
    return shape, dtype
