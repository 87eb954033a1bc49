"""The interface of a detector, and the detectors that take boxes from elsewhere: the whole image, or a file."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qanet.datasets.annotations import PERSON, read_json
from qanet.errors import QanetError
from qanet.geometry import check_boxes


@dataclass(frozen=True)
class Detections:
    """People of one image: boxes (N, 4) float32 xyxy pixels, scores (N,) float32 in [0, 1]."""

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    track_ids: NDArray[np.int64] | None = None  # (N,) identities in video

    def __len__(self) -> int:
        return len(self.boxes)

    def take(self, which: NDArray[np.intp] | slice) -> "Detections":
        """The chosen ones."""
        ids = None if self.track_ids is None else self.track_ids[which]
        return Detections(self.boxes[which], self.scores[which], ids)

    def usable(self) -> "Detections":
        """Those whose box has an area and whose numbers are finite: a NaN would spoil a track for good."""
        boxes, scores = np.asarray(self.boxes, np.float32).reshape(-1, 4), np.asarray(self.scores, np.float32)
        good = np.isfinite(boxes).all(1) & np.isfinite(scores) & (boxes[:, 2:] > boxes[:, :2]).all(1)
        return self if good.all() else self.take(np.flatnonzero(good))


Candidates = tuple[NDArray[np.float32], NDArray[np.float32]]  # boxes (N, 4) xyxy, scores (N,), in no order
NOBODY = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))


class Detector(Protocol):
    """Finds people in a BGR image."""

    name: str

    def detect(self, image: NDArray[np.uint8], frame: int | str = 0) -> Detections:
        """People in an (H, W, 3) uint8 BGR image; `frame` names it for detectors that look boxes up."""
        ...


def clip_boxes(boxes: NDArray[np.float32], image_hw: tuple[int, int]) -> NDArray[np.float32]:
    """Boxes cut to the image."""
    limit = np.array([image_hw[1], image_hw[0]] * 2, np.float32)
    return np.clip(boxes, 0, limit)


def check_scores(box_scores: ArrayLike | None, count: int) -> NDArray[np.float32]:
    """(count,) float32 of finite scores, ones for None; QanetError for anything else."""
    if box_scores is None:
        return np.ones(count, np.float32)
    try:
        scores = np.asarray(box_scores, np.float32)
    except (TypeError, ValueError) as error:
        raise QanetError("box_scores are not numbers", expected=(count,), got=box_scores) from error
    if scores.shape != (count,):
        raise QanetError("box_scores do not fit the boxes", expected=(count,), got=scores.shape)
    if not np.isfinite(scores).all():
        raise QanetError("a box score is not finite", expected="numbers in [0, 1]", got=scores.tolist())
    return scores


class WholeImage:
    """One person per image that fills it, score 1."""

    name = "whole image"

    def detect(self, image: NDArray[np.uint8], frame: int | str = 0) -> Detections:
        """See `Detector.detect`."""
        box = np.array([[0, 0, image.shape[1], image.shape[0]]], np.float32)
        return Detections(box, np.ones(1, np.float32))


class BoxesFile:
    """Boxes from a JSON file.

    Either a list, used for every frame, of [x0, y0, x1, y1] or [x0, y0, x1, y1, score]; or an object that maps
    a frame's number ("0", "1", ...) or an image's file name to such a list; or COCO results: objects with
    image_id (frame number or file name), bbox [x, y, width, height], score, and category_id 1, a person, where there is
    one. The image_id 785 is also that of the file 000000000785.jpg: the last number in the name counts.
    """

    def __init__(self, path: Path):
        self.name = f"boxes of {path.name}"
        raw = read_json(path, "boxes of people")
        self._path = path
        self._always: Detections | None = None
        self._by_frame: dict[str, Detections] = {}
        self._seen: dict[str, str] = {}  # key of the file -> the frame that has its boxes
        if isinstance(raw, dict):
            self._by_frame = {str(key): self._rows(rows) for key, rows in raw.items()}
        elif isinstance(raw, list) and raw and isinstance(raw[0], dict):
            groups: dict[str, list[Any]] = {}
            for entry in raw:
                row = self._coco_row(entry)
                if entry.get("category_id", PERSON) == PERSON:
                    groups.setdefault(str(entry.get("image_id")), []).append(row)
            if not groups:
                got = sorted({str(entry["category_id"]) for entry in raw})[:8]
                raise QanetError(f"{path} has no box of a person", expected=f"category_id {PERSON}", got=got)
            self._by_frame = {key: self._rows(rows) for key, rows in groups.items()}
        else:
            self._always = self._rows(raw)

    def _coco_row(self, entry: dict[str, Any]) -> list[float]:
        try:
            x, y, width, height = (float(v) for v in entry["bbox"])
            return [x, y, x + width, y + height, float(entry.get("score", 1.0))]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise QanetError(f"{self._path}: bad entry", expected="bbox [x, y, w, h], score", got=entry) from error

    def _rows(self, rows: Any) -> Detections:
        try:
            if any(not isinstance(row, list) or len(row) not in (4, 5) for row in rows):
                raise ValueError("a row is no list of 4 or 5 numbers")
            table = np.array([[*row, 1.0][:5] for row in rows], np.float32).reshape(-1, 5)
            boxes = check_boxes(table[:, :4])
            if not np.isfinite(table[:, 4]).all():
                raise ValueError("a score is not finite")
        except (TypeError, ValueError) as error:
            raise QanetError(
                f"{self._path}: boxes cannot be read",
                expected="lists of x0 y0 x1 y1 and maybe a score",
                got=str(rows)[:80],
            ) from error
        except QanetError as error:
            raise QanetError(f"{self._path}: {error}") from error
        return Detections(boxes, table[:, 4])

    @property
    def unused(self) -> list[str]:
        """Frames of the file that were never requested: a sign of wrong numbers or names."""
        return [key for key in self._by_frame if key not in self._seen]

    def detect(self, image: NDArray[np.uint8], frame: int | str = 0) -> Detections:
        """See `Detector.detect`; QanetError for a box wholly outside the image, and for a number of two images."""
        key, name = self._key(str(frame)), str(frame)
        if key is not None and self._seen.setdefault(key, name) != name and key != name:
            expected = f"the names of the images in {self._path}"
            raise QanetError(f"two images have the number {key}", expected=expected, got=f"{self._seen[key]}, {name}")
        found = self._always if self._always is not None else self._by_frame[key] if key is not None else NOBODY
        check_boxes(found.boxes, (image.shape[0], image.shape[1]))
        return found

    def _key(self, frame: str) -> str | None:
        """What the file calls a frame: its number or name; for an image also its stem, and the last number in that."""
        stem = Path(frame).stem
        numbers = re.findall(r"[0-9]+", stem) if stem != frame else []
        wanted = (frame, stem, *(number.lstrip("0") or "0" for number in numbers[-1:]))
        return next((key for key in wanted if key in self._by_frame), None)
