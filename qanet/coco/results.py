"""COCO and LVIS results, one at a time: files of any size are read and written without being held whole.

A results file is one JSON array of {"image_id", "category_id", "score", "bbox": [x, y, width, height], "segmentation"}.
"""

import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from qanet.errors import QanetError
from qanet.files import written_aside

Result = dict[str, Any]

_CHUNK_CHARS = 1 << 20
_REQUIRED = ("image_id", "category_id", "score")
_FORM = '[{"image_id": ..., "category_id": ..., "bbox": [x, y, w, h], "segmentation": ..., "score": ...}, ...]'


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
    """Write results as one JSON array, one a line, whole or not at all; how many there were.

    The same results always give the same bytes.
    """
    count = 0
    with written_aside(path) as aside, aside.open("w", encoding="utf-8") as file:
        file.write("[")
        for result in results:
            file.write(",\n" if count else "\n")
            file.write(json.dumps(result, separators=(",", ":"), allow_nan=False))
            count += 1
        file.write("\n]\n")
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
    """`rest` and what follows it in the file: as much again, so that a long entry is not parsed too often."""
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
