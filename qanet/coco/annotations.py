"""COCO and LVIS annotation files: checked once where they are read, their masks as arrays, their people as boxes.

Polygons are filled as pycocotools fills them, pixel by pixel (tests compare the two): the mask for training is
then the mask for evaluation.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.datasets.annotations import finite_box, read_json
from qanet.errors import QanetError
from qanet.rle import decode

Document = dict[str, Any]

_SECTIONS = {"images": ("id", "height", "width"), "annotations": ("id", "image_id", "category_id", "segmentation")}
_FINE = 5  # polygons are traced on a grid of 1/5 pixel


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
    """Whether this is a file of LVIS: its images name the categories that were not annotated exhaustively."""
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
    """The annotations to train or evaluate on: of the category, no crowd, with a box and an area."""
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


def segmentation_mask(segmentation: Any, image_hw: tuple[int, int]) -> NDArray[np.uint8]:
    """An annotation's or a result's `segmentation` as (H, W) uint8 of 0 and 1.

    Args:
        segmentation: a list of polygons [x0, y0, x1, y1, ...] in pixels (their union), or {"size", "counts"} with
            counts as a packed string (bytes) or a list of runs.
        image_hw: (H, W) pixels of the image.
    Raises:
        QanetError: neither of them, or run lengths of another size.
    """
    if isinstance(segmentation, list):
        mask = np.zeros(image_hw, np.uint8)
        for polygon in segmentation:
            mask |= fill_polygon(polygon, image_hw)
        return mask
    size = run_length_size(segmentation)
    if size is None:
        raise QanetError(
            "this is no segmentation",
            expected='polygons, or {"size": [H, W], "counts": ...}',
            got=repr(segmentation)[:80],
        )
    if size != tuple(image_hw):
        raise QanetError("a segmentation and its image differ in size", expected=tuple(image_hw), got=size)
    return decode(segmentation)


def run_length_size(segmentation: Any) -> tuple[int, int] | None:
    """(H, W) of a run-length segmentation; None where it is something else."""
    if not isinstance(segmentation, dict) or not isinstance(segmentation.get("counts"), (str, bytes, list)):
        return None
    size = segmentation.get("size")
    if not isinstance(size, list) or len(size) != 2 or not all(type(v) is int and v > 0 for v in size):
        return None
    return size[0], size[1]


def fill_polygon(polygon: Sequence[float], image_hw: tuple[int, int]) -> NDArray[np.uint8]:
    """One polygon [x0, y0, x1, y1, ...] in pixels as (H, W) uint8 of 0 and 1.

    The outline is walked in steps of 1/5 pixel; wherever it passes the centre line of a pixel column, the column
    changes between outside and inside from that row on.

    Raises:
        QanetError: not three points or more of finite numbers.
    """
    try:
        points = np.asarray(polygon, np.float64)
    except (TypeError, ValueError) as error:
        raise QanetError("a polygon is not numbers", expected="[x0, y0, x1, y1, ...]", got=polygon) from error
    if points.ndim != 1 or len(points) < 6 or len(points) % 2 or not np.isfinite(points).all():
        got = f"{points.shape} with {np.isfinite(points).sum()} finite"
        raise QanetError("a polygon needs three points", expected="six finite numbers or more, an even count", got=got)
    height, width = image_hw
    x, y = _outline((_FINE * points.reshape(-1, 2) + 0.5).astype(np.int64))
    passes = np.flatnonzero(x[1:] != x[:-1])
    column = (np.minimum(x[passes], x[passes + 1]) + 0.5) / _FINE - 0.5
    row = np.ceil(np.clip((np.minimum(y[passes], y[passes + 1]) + 0.5) / _FINE - 0.5, 0, height)).astype(np.int64)
    centred = (np.floor(column) == column) & (column >= 0) & (column <= width - 1)
    places = column[centred].astype(np.int64) * height + row[centred]
    changes = np.bincount(places, minlength=height * width + 1)[: height * width]
    return (np.cumsum(changes) % 2).astype(np.uint8).reshape((height, width), order="F")


def _outline(corners: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Every grid point (x, y) along the closed outline, edge after edge, one point a step of the longer axis."""
    xs, ys = [], []
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0)):
        dx, dy = abs(x1 - x0), abs(y1 - y0)
        steps = np.arange(max(dx, dy) + 1)
        if dx >= dy:  # the shorter axis is rounded from the same end whichever way the edge runs
            turned = x0 > x1
            start, stop, other, last = (x1, x0, y1, y0) if turned else (x0, x1, y0, y1)
        else:
            turned = y0 > y1
            start, stop, other, last = (y1, y0, x1, x0) if turned else (y0, y1, x0, x1)
        steps = steps[::-1] if turned else steps
        slope = (last - other) / (stop - start) if stop > start else 0.0
        along, across = start + steps, np.trunc(other + slope * steps + 0.5).astype(np.int64)
        xs.append(along if dx >= dy else across)
        ys.append(across if dx >= dy else along)
    return np.concatenate(xs), np.concatenate(ys)


@dataclass(frozen=True, eq=False)
class PeopleBoxes:
    """The people of one image as boxes.

    Attributes:
        file_name: the image's, as the file has it.
        source: where the image comes from (its key `source`); "" where the file does not say.
        boxes: (M, 4) float32 xyxy pixels.
        scores: (M,) float32, how sure the annotator is (a key `score`); 1 where the file does not say.
        crowds: (M,) bool, boxes around a crowd and not a person.
    """

    file_name: str
    source: str
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    crowds: NDArray[np.bool_]


def read_people_boxes(path: Path) -> list[PeopleBoxes]:
    """The boxes of a file of people in COCO's form, image by image in the file's order; segmentations are not needed.

    Raises:
        QanetError: no such file, no JSON, no images, or an entry without its keys or its image.
    """
    try:
        document = json.loads(path.read_text())
        images = {image["id"]: (str(image["file_name"]), str(image.get("source", ""))) for image in document["images"]}
        rows: dict[Any, list[list[float]]] = {image_id: [] for image_id in images}
        for entry in document["annotations"]:
            x, y, width, height = (float(v) for v in entry["bbox"])
            score, is_crowd = float(entry.get("score", 1.0)), float(bool(entry.get("iscrowd")))
            rows[entry["image_id"]].append([x, y, x + width, y + height, score, is_crowd])
    except OSError as error:
        raise QanetError(f"no {path.name} in {path.parent}", got=error.strerror) from error
    except (ValueError, KeyError, TypeError) as error:
        expected = "COCO images and annotations"
        raise QanetError(f"{path} is not a file of labels", expected=expected, got=error) from error
    if not images:
        raise QanetError(f"{path} has no images", expected="one or more", got=0)
    tables = {image_id: np.array(found, np.float32).reshape(-1, 6) for image_id, found in rows.items()}
    return [
        PeopleBoxes(*images[image_id], table[:, :4], table[:, 4], table[:, 5] > 0) for image_id, table in tables.items()
    ]
