"""JSON files next to a data set's images: people with parsing_id, a detector's boxes, tags.

The official annotation file is COCO JSON with one extra key, parsing_id, the person's value in Human_ids (source:
method, Layout). As in the published code, crowds, other categories than person and annotations without area are left
out.

Boxes of a detector are a COCO results file: [{"image_id", "category_id", "bbox": [x, y, w, h], "score"}, ...]. Tags say
which classes a photograph may show, without its pixels.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.errors import QanetError
from qanet.labels import LabelSet
from qanet.metrics.records import Truth

PERSON = 1  # COCO's category id of a person, the only one of the parsing sets
_MAX_HUMAN_ID = 255  # Human_ids has 8 bits
_MIN_SIDE_PX = 1.0  # of a detected box inside the image
Tags = Mapping[str, NDArray[np.intp]]  # photograph -> its class ids, ascending, background among them


@dataclass(frozen=True, eq=False)
class AnnotatedPerson:
    """One annotation: its value in Human_ids and its box (4,) float32 xyxy pixels."""

    parsing_id: int
    box: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class ImageRecord:
    """One image of the file and its people."""

    image_id: int | str
    file_name: str
    hw: tuple[int, int] | None  # as the file has it; None: not in the file
    people: tuple[AnnotatedPerson, ...]

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
    people: dict[int | str, list[AnnotatedPerson]] = {image_id: [] for image_id in images}
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
            has_size = all(isinstance(side, int) and not isinstance(side, bool) for side in hw)
            images[entry["id"]] = (entry["file_name"], (int(hw[0]), int(hw[1])) if has_size else None)  # type: ignore[arg-type]
    return images


def _add_person(
    entry: Any,
    where: str,
    images: dict[int | str, Any],
    people: dict[int | str, list[AnnotatedPerson]],
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
        return wrong("is of an image that is not in the file", "the id of one of its images", image_id)
    if isinstance(parsing_id, bool) or not isinstance(parsing_id, int) or not 1 <= parsing_id <= _MAX_HUMAN_ID:
        return wrong("has a broken parsing_id", f"1..{_MAX_HUMAN_ID}", parsing_id)
    if any(person.parsing_id == parsing_id for person in people[image_id]):
        return wrong("has a parsing_id that is taken", "an id for each person of the image", parsing_id)
    if numbers is None or min(numbers[2:]) <= 0:
        return wrong("has a broken bbox", "x, y, width > 0, height > 0", entry["bbox"])
    x, y, w, h = numbers
    people[image_id].append(AnnotatedPerson(parsing_id, np.array([x, y, x + w, y + h], np.float32)))
    return None


def _is_id(value: Any) -> bool:
    return isinstance(value, (int, str)) and not isinstance(value, bool)


def finite_box(value: Any) -> list[float] | None:
    """x, y, width, height of a COCO bbox, None where it is none."""
    if not isinstance(value, list) or len(value) != 4:
        return None
    if not all(isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v) for v in value):
        return None
    return [float(v) for v in value]


def read_json(path: Path, what: str) -> Any:
    """A JSON file's content; QanetError where there is none or it is broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise QanetError(f"no file {path}", expected=what, got="missing") from error
    except OSError as error:
        raise QanetError(f"{path} cannot be read", expected=what, got=error.strerror) from error
    except ValueError as error:
        raise QanetError(f"{path} is no JSON", expected=what, got=str(error)) from error


@dataclass(frozen=True)
class DetectedBoxes:
    """A detector's people, by image: (N, 5) float32 x0 y0 x1 y1 score, as the file has them."""

    path: Path
    by_image: dict[str, NDArray[np.float32]]

    def of(self, image_id: int | str, image_hw: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Boxes (N, 4) xyxy and scores (N,) of an image, cut at its border; those with less than a pixel inside are
        dropped."""
        height, width = image_hw
        rows = self.by_image.get(str(image_id), np.zeros((0, 5), np.float32))
        boxes = np.clip(rows[:, :4], 0, np.array([width, height, width, height], np.float32))
        inside = (boxes[:, 2:] - boxes[:, :2] >= _MIN_SIDE_PX).all(1)
        return boxes[inside], rows[inside, 4]


def read_detections(path: str | Path, image_ids: Sequence[int | str]) -> DetectedBoxes:
    """Read a COCO results file for the images of a data set; other categories than person are left out.

    Args:
        path: the JSON file.
        image_ids: the data set's images; those that the file does not name have no detection.
    Raises:
        QanetError: no such file, no JSON, an entry without its keys, a box or score that is no finite number, an
            image that is not in the data set.

    >>> text = '[{"image_id": "0002", "category_id": 1, "bbox": [8, 8, 16, 32], "score": 0.9}]'
    >>> _ = Path("boxes.json").write_text(text)
    >>> read_detections("boxes.json", image_ids=["0001", "0002"]).of("0002", (48, 32))[0].tolist()
    [[8.0, 8.0, 24.0, 40.0]]
    """
    path = Path(path)
    entries = read_json(path, "boxes of people as a COCO results list")
    if not isinstance(entries, list):
        raise QanetError(
            f"{path} is no COCO results file",
            expected="a list of {image_id, category_id, bbox, score}",
            got=type(entries).__name__,
        )
    known = {str(i) for i in image_ids}
    found: dict[str, list[list[float]]] = {}
    for number, entry in enumerate(entries):
        image, row = _row(entry, f"{path}, entry {number}")
        if row is None:
            continue
        if image not in known:
            raise QanetError(
                f"{path}, entry {number} is of an image that is not in the data set",
                expected=f"an image_id like {next(iter(image_ids), None)!r}",
                got=repr(entry["image_id"]),
                next_command="give the boxes of this data set and split",
            )
        found.setdefault(image, []).append(row)
    return DetectedBoxes(path, {image: np.array(rows, np.float32) for image, rows in found.items()})


def _row(entry: Any, where: str) -> tuple[str, list[float] | None]:
    """The image and x0 y0 x1 y1 score of an entry; no row for another category."""
    expected = "image_id, category_id, bbox [x, y, w, h], score"
    if not isinstance(entry, dict) or not {"image_id", "category_id", "bbox", "score"} <= entry.keys():
        got = sorted(entry) if isinstance(entry, dict) else type(entry).__name__
        raise QanetError(f"{where} is no detection", expected=expected, got=got)
    if entry["category_id"] != PERSON:
        return str(entry["image_id"]), None
    numbers = finite_box(entry["bbox"])
    score = entry["score"]
    if numbers is None or isinstance(score, bool) or not isinstance(score, (int, float)) or not math.isfinite(score):
        raise QanetError(
            f"{where} has a broken box", expected="four finite numbers and a score", got=[entry["bbox"], score]
        )
    x, y, w, h = numbers
    return str(entry["image_id"]), [x, y, x + w, y + h, float(score)]


def read_tags(path: Path, labels: LabelSet) -> Tags:
    """The tags of a JSON file, `{"1005": [0, 19, 41], ...}`: class ids of `labels` by photograph.

    Raises:
        QanetError: not a JSON object of photographs with lists of class ids.
    """
    try:
        document = {str(name): {0, *map(int, ids)} for name, ids in json.loads(path.read_text()).items()}
        if any(not 0 <= i < labels.num_classes for ids in document.values() for i in ids):
            raise ValueError(f"class ids are 0 to {labels.num_classes - 1}")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        expected = '{"1005": [0, 19, 41], ...}: class ids by photograph'
        raise QanetError(f"{path} cannot be read as tags", expected=expected, got=error) from error
    return {name: np.array(sorted(ids), np.intp) for name, ids in document.items()}


def tags_of(truth: Truth, num_classes: int) -> NDArray[np.intp]:
    """The class ids that an annotation shows, ascending, background among them: tags derived from the answer."""
    shown = np.bincount(truth.category.ravel(), minlength=256)[:num_classes] > 0
    shown[0] = True
    return np.flatnonzero(shown)
