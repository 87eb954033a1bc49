"""The official annotation file: COCO JSON with one extra key, parsing_id, the person's value in Human_ids.

Source: method, Layout. As in the published code, crowds, other categories than person and annotations without area
are no people.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.datasets.coco import PERSON, finite_box, read_json
from qanet.errors import QanetError

_MAX_HUMAN_ID = 255  # Human_ids has 8 bits


@dataclass(frozen=True, eq=False)
class Person:
    """One annotation: its value in Human_ids and its box (4,) float32 xyxy pixels."""

    parsing_id: int
    box: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class ImageRecord:
    """One image of the file and its people."""

    image_id: int | str
    file_name: str
    hw: tuple[int, int] | None  # as the file has it; None: not said
    people: tuple[Person, ...]

    @property
    def stem(self) -> str:
        """The file name without its suffix; the label maps' name."""
        return str(Path(self.file_name).with_suffix(""))


def read_annotations(path: Path) -> tuple[list[ImageRecord], list[QanetError]]:
    """The images of an annotation file in the order of their ids, and every mistake in single entries.

    Raises:
        QanetError: no such file, no JSON, or not the structure of a COCO annotation file.
    """
    document = read_json(path, "COCO annotations with parsing_id")
    sections = [document.get(key) if isinstance(document, dict) else None for key in ("images", "annotations")]
    if not all(isinstance(section, list) for section in sections):
        got = sorted(document)[:8] if isinstance(document, dict) else type(document).__name__
        raise QanetError(f"{path} is no annotation file", expected="lists `images` and `annotations`", got=got)
    problems: list[QanetError] = []
    images = _images(sections[0] or [], path, problems)
    people: dict[int | str, list[Person]] = {image_id: [] for image_id in images}
    for number, entry in enumerate(sections[1] or []):
        _add_person(entry, f"{path}, annotation {number}", images, people, problems)
    records = [ImageRecord(i, name, hw, tuple(people[i])) for i, (name, hw) in images.items()]
    return sorted(records, key=lambda r: (isinstance(r.image_id, str), r.image_id)), problems


def _images(
    entries: Iterable[Any], path: Path, problems: list[QanetError]
) -> dict[int | str, tuple[str, tuple[int, int] | None]]:
    images: dict[int | str, tuple[str, tuple[int, int] | None]] = {}
    for number, entry in enumerate(entries):
        where = f"{path}, image {number}"
        if not isinstance(entry, dict) or not _is_id(entry.get("id")) or not isinstance(entry.get("file_name"), str):
            problems.append(QanetError(f"{where} is incomplete", expected="id and file_name", got=str(entry)[:80]))
        elif entry["id"] in images:
            problems.append(QanetError(f"{where} has an id that is taken", expected="an id each", got=entry["id"]))
        else:
            hw = (entry.get("height"), entry.get("width"))
            said = all(isinstance(side, int) and not isinstance(side, bool) for side in hw)
            images[entry["id"]] = (entry["file_name"], (int(hw[0]), int(hw[1])) if said else None)  # type: ignore[arg-type]
    return images


def _add_person(
    entry: Any,
    where: str,
    images: dict[int | str, Any],
    people: dict[int | str, list[Person]],
    problems: list[QanetError],
) -> None:
    """Add one annotation to its image's people, or what is wrong with it to the problems."""

    def wrong(fact: str, expected: object, got: object) -> None:
        problems.append(QanetError(f"{where} {fact}", expected=expected, got=got))

    if not isinstance(entry, dict) or not {"image_id", "bbox", "parsing_id"} <= entry.keys():
        got = sorted(entry) if isinstance(entry, dict) else type(entry).__name__
        return wrong("is incomplete", "image_id, bbox, parsing_id", got)
    area = entry.get("area", 1)
    if entry.get("iscrowd", 0) or entry.get("category_id", PERSON) != PERSON:
        return None
    if isinstance(area, bool) or not isinstance(area, (int, float)):
        return wrong("has a broken area", "a number of pixels", area)
    if area <= 0:
        return None
    image_id, parsing_id, numbers = entry["image_id"], entry["parsing_id"], finite_box(entry["bbox"])
    if not _is_id(image_id) or image_id not in images:
        return wrong("is of an image that the file has not", "the id of one of its images", image_id)
    if isinstance(parsing_id, bool) or not isinstance(parsing_id, int) or not 1 <= parsing_id <= _MAX_HUMAN_ID:
        return wrong("has a broken parsing_id", f"1..{_MAX_HUMAN_ID}", parsing_id)
    if any(person.parsing_id == parsing_id for person in people[image_id]):
        return wrong("has a parsing_id that is taken", "an id for each person of the image", parsing_id)
    if numbers is None or min(numbers[2:]) <= 0:
        return wrong("has a broken bbox", "x, y, width > 0, height > 0", entry["bbox"])
    x, y, w, h = numbers
    people[image_id].append(Person(parsing_id, np.array([x, y, x + w, y + h], np.float32)))
    return None


def _is_id(value: Any) -> bool:
    return isinstance(value, (int, str)) and not isinstance(value, bool)
