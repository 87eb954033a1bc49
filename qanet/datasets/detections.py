"""Boxes of a detector: a COCO results file, [{"image_id", "category_id", "bbox": [x, y, w, h], "score"}, ...]."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.datasets.coco import PERSON, finite_box, read_json
from qanet.errors import QanetError

_MIN_SIDE_PX = 1.0


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
            image that the data set has not.
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
                f"{path}, entry {number} is of an image that the data set has not",
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
