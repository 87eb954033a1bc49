"""COCO and LVIS annotation files, checked once where they are read."""

from pathlib import Path
from typing import Any

from qanet.datasets.annotations import finite_box, read_json
from qanet.errors import QanetError

Document = dict[str, Any]

_SECTIONS = {"images": ("id", "height", "width"), "annotations": ("id", "image_id", "category_id", "segmentation")}


def read_annotation_file(path: Path) -> Document:
    """An instance annotation file: `images`, `annotations` with segmentations, `categories`.

    Raises:
        QanetError: no such file, no JSON, a section or a key that is missing, an annotation of an unknown image.
    """
    what = "COCO or LVIS annotations: an object with images, annotations, categories"
    document = read_json(path, what)
    if not isinstance(document, dict) or not all(isinstance(document.get(key), list) for key in _SECTIONS):
        got = ", ".join(sorted(document)[:6]) if isinstance(document, dict) else "a list (results, perhaps)"
        raise QanetError(f"{path} is no annotation file", expected=what, got=got)
    for section, keys in _SECTIONS.items():
        for index, entry in enumerate(document[section]):
            missing = [key for key in keys if not isinstance(entry, dict) or key not in entry]
            if missing:
                raise QanetError(f"{path}: {section}[{index}] lacks {missing[0]!r}", expected=", ".join(keys))
    known = {image["id"] for image in document["images"]}
    for index, entry in enumerate(document["annotations"]):
        if entry["image_id"] not in known:
            raise QanetError(
                f"{path}: annotations[{index}] is of no image", expected="a known id", got=entry["image_id"]
            )
    return document


def is_lvis(document: Document) -> bool:
    """Whether the file is LVIS's: its images name the categories that were not annotated exhaustively."""
    return any("not_exhaustive_category_ids" in image for image in document["images"])


def person_category(document: Document, path: Path) -> int:
    """The id of the category called person; 1 where the file names no categories."""
    named = {entry.get("name"): entry.get("id") for entry in document.get("categories", []) if isinstance(entry, dict)}
    if not named:
        return 1
    category = named.get("person")
    if not isinstance(category, int):
        raise QanetError(f"{path} has no category person", expected="person", got=", ".join(map(str, named))[:80])
    return category


def usable_people(document: Document, category: int) -> list[Document]:
    """The annotations to learn from or to measure on: of the category, no crowd, with a box and an area."""
    return [
        entry
        for entry in document["annotations"]
        if entry["category_id"] == category
        and not entry.get("iscrowd", 0)
        and entry.get("area", 1) > 0
        and entry["segmentation"]
        and (box := finite_box(entry.get("bbox"))) is not None
        and min(box[2:]) >= 1
    ]


def file_name(image: Document) -> str:
    """An image's file name; LVIS gives an address that ends in it instead."""
    return str(image.get("file_name") or str(image.get("coco_url", "")).rpartition("/")[2])
