"""A parsed image: people with labels and scores, as arrays, pictures, JSON, COCO, and other libraries' types."""

import io
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet import rle
from qanet.errors import QanetError
from qanet.labels import LabelSet


class PartScores(np.ndarray):
    """(C - 1,) float32, a value per part, without background; an element is also found by the name of its part.

    >>> scores = PartScores.of([0.5, 0.9], ("background", "hair", "face"))
    >>> float(scores["hair"]), scores.to_dict()
    (0.5, {'hair': 0.5, 'face': 0.9})
    """

    names: tuple[str, ...] = ()

    @classmethod
    def of(cls, values: Any, classes: Sequence[str]) -> "PartScores":
        """Values by class; `classes` are a label set's, background first."""
        scores = np.asarray(values, np.float32).view(cls)
        scores.names = tuple(classes[1:])
        return scores

    def __array_finalize__(self, source: Any) -> None:
        self.names = getattr(source, "names", ())

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            if key not in self.names:
                raise KeyError(f"no part {key!r}; the parts are {', '.join(self.names) or 'not named'}")
            key = self.names.index(key)
        return super().__getitem__(key)

    def to_dict(self) -> dict[str, float]:
        """The values by the names of the parts, rounded to four digits."""
        return {name: _rounded(value) for name, value in zip(self.names, self.tolist())}


@dataclass
class Person:
    """One person: the box, the class of each pixel, and how far the parsing and each part can be trusted.

    Attributes:
        box: (4,) float32 xyxy pixels, as detected.
        box_score: the detector's score, in [0, 1].
        iou_score: the network's prediction of its own mean IoU, in [0, 1].
        pixel_score: mean confidence of the pixels above the threshold.
        quality: QAM, the three scores fused.
        part_scores: (C - 1,) float32 pixel score of each part, 0 where it has no pixel; `part_scores["hair"]`.
        part_quality: (C - 1,) float32 QAM with the part's pixel score; `part_quality["hair"]`.
        labels: (y1 - y0, x1 - x0) uint8 class of each pixel of the region.
        roi: x0, y0, x1, y1, the region in pixels of the whole image.
        track_id: the number of the person in a video; None where people are not tracked.
        expected_miou: the mean IoU that a person of these scores can be expected to have, in [0, 1]; None where the
            model has no quality map for this precision.
        expected_part_iou: (C - 1,) float32 likewise of each part, 0 where it has no pixel.

    Source: QANet, arXiv 2103.05997, section 3.3.
    """

    box: NDArray[np.float32]
    box_score: float
    iou_score: float
    pixel_score: float
    quality: float
    part_scores: NDArray[np.float32]
    part_quality: NDArray[np.float32]
    labels: NDArray[np.uint8]
    roi: tuple[int, int, int, int]
    track_id: int | None = None
    expected_miou: float | None = None
    expected_part_iou: NDArray[np.float32] | None = None

    @property
    def worth(self) -> float:
        """What thresholds take: the expected mean IoU, or the quality where there is none."""
        return self.quality if self.expected_miou is None else self.expected_miou

    def __repr__(self) -> str:
        x0, y0, x1, y1 = (round(float(v)) for v in self.box)
        track = f"#{self.track_id} " if self.track_id is not None else ""
        return (
            f"Person({track}Q {self.quality:.2f}, iou {self.iou_score:.2f}, pixel {self.pixel_score:.2f}, "
            f"box {self.box_score:.2f} at ({x0}, {y0}, {x1}, {y1}))"
        )

    def to_json(self, label_set: LabelSet, image_size: tuple[int, int], masks: bool = True) -> dict[str, Any]:
        """Plain data; each part with its scores and, unless `masks` is False, its COCO RLE on the whole image."""
        parts = []
        for class_id, (area_px, mask) in rle.encode_labels(self.labels, self.roi[:2], image_size).items():
            part: dict[str, Any] = {
                "class": label_set.classes[class_id],
                "class_id": class_id,
                "pixel_score": _rounded(self.part_scores[class_id - 1]),
                "quality": _rounded(self.part_quality[class_id - 1]),
                "area_px": area_px,
            }
            if self.expected_part_iou is not None:
                part["expected_iou"] = _rounded(self.expected_part_iou[class_id - 1])
            if masks:
                part["rle"] = mask
            parts.append(part)
        scores = {"box_score": self.box_score, "iou_score": self.iou_score, "pixel_score": self.pixel_score}
        record: dict[str, Any] = {"box_xyxy": [_rounded(v, 2) for v in self.box]}
        record |= {key: _rounded(value) for key, value in scores.items()}
        record |= {"quality": _rounded(self.quality), "parts": parts}
        if self.expected_miou is not None:
            record["expected_miou"] = _rounded(self.expected_miou)
        if self.track_id is not None:
            record["track_id"] = self.track_id
        return record


@dataclass(repr=False)
class People:
    """All people of one image, best quality first; a sequence of `Person` that is also arrays.

    Args:
        image: (H, W, 3) uint8 BGR, as parsed.
        label_set: the classes of the pixels.
        people: in any order; sorted by quality here.

    >>> from qanet.labels import CCP13
    >>> people = People(np.zeros((1080, 1920, 3), np.uint8), CCP13, [])
    >>> people, people.boxes.shape, people.labels.shape
    (People(0 of ccp13, 1080x1920), (0, 4), (1080, 1920))
    """

    image: NDArray[np.uint8]
    label_set: LabelSet
    people: list[Person]

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or self.image.shape[2] != 3 or self.image.dtype != np.uint8:
            got = f"{self.image.dtype} {self.image.shape}"
            raise QanetError("a result's image does not fit", expected="uint8 (H, W, 3)", got=got)
        self.people = sorted(self.people, key=lambda p: -p.quality)
        for person in self.people:
            person.part_scores = PartScores.of(person.part_scores, self.label_set.classes)
            person.part_quality = PartScores.of(person.part_quality, self.label_set.classes)
            if person.expected_part_iou is not None:
                person.expected_part_iou = PartScores.of(person.expected_part_iou, self.label_set.classes)

    def __len__(self) -> int:
        return len(self.people)

    def __iter__(self) -> Iterator[Person]:
        return iter(self.people)

    def __getitem__(self, index: int) -> Person:
        return self.people[index]

    def __repr__(self) -> str:
        best = f", best Q {self.people[0].quality:.2f}" if self.people else ""
        return f"People({len(self)} of {self.label_set.name}, {self.image_size[0]}x{self.image_size[1]}{best})"

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) pixels."""
        return self.image.shape[0], self.image.shape[1]

    @property
    def boxes(self) -> NDArray[np.float32]:
        """(N, 4) float32 xyxy pixels, as detected."""
        return np.array([p.box for p in self.people], np.float32).reshape(-1, 4)

    @property
    def scores(self) -> NDArray[np.float32]:
        """(N,) float32 scores of the detector."""
        return self._column("box_score")

    @property
    def iou(self) -> NDArray[np.float32]:
        """(N,) float32 predicted IoU."""
        return self._column("iou_score")

    @property
    def pixel(self) -> NDArray[np.float32]:
        """(N,) float32 pixel scores."""
        return self._column("pixel_score")

    @property
    def quality(self) -> NDArray[np.float32]:
        """(N,) float32 fused quality (QAM), descending."""
        return self._column("quality")

    @property
    def part_scores(self) -> NDArray[np.float32]:
        """(N, C - 1) float32 pixel score of each part."""
        return self._parts("part_scores")

    @property
    def part_quality(self) -> NDArray[np.float32]:
        """(N, C - 1) float32 fused quality of each part."""
        return self._parts("part_quality")

    @property
    def expected_miou(self) -> NDArray[np.float32]:
        """(N,) float32 expected mean IoU; nan where the model has no quality map."""
        return np.array([np.nan if p.expected_miou is None else p.expected_miou for p in self.people], np.float32)

    @property
    def expected_part_iou(self) -> NDArray[np.float32]:
        """(N, C - 1) float32 expected IoU of each part; nan where the model has no quality map."""
        nothing = np.full(self.label_set.num_classes - 1, np.nan)
        rows = [nothing if p.expected_part_iou is None else np.asarray(p.expected_part_iou) for p in self.people]
        return np.array(rows, np.float32).reshape(-1, self.label_set.num_classes - 1)

    def at_least(self, quality: float) -> "People":
        """The people whose expected mean IoU is `quality` or more; whose Q, where the model has no quality map.

        >>> from qanet.labels import CCP13
        >>> len(People(np.zeros((9, 9, 3), np.uint8), CCP13, []).at_least(0.7))
        0
        """
        return replace(self, people=[person for person in self.people if person.worth >= quality])

    @property
    def track_ids(self) -> NDArray[np.int64]:
        """(N,) int64 track numbers; -1 where a person has none."""
        return np.array([-1 if p.track_id is None else p.track_id for p in self.people], np.int64)

    @property
    def labels(self) -> NDArray[np.uint8]:
        """(H, W) uint8: foreground labels, painted in ascending quality, so the best person is on top."""
        canvas = np.zeros(self.image_size, np.uint8)
        for person in reversed(self.people):
            x0, y0, x1, y1 = person.roi
            region = canvas[y0:y1, x0:x1]
            np.copyto(region, person.labels, where=person.labels > 0)
        return canvas

    def mask(self, part: str | int | None = None, person: int | None = None) -> NDArray[np.bool_]:
        """(H, W) bool: the pixels of a part.

        Args:
            part: name or id of a class; None takes every part, so the mask is a silhouette.
            person: position in this list, whatever lies on top of that person; None takes the painted label map.
        Raises:
            QanetError: no class of that name.
        """
        if part is None:
            wanted = range(1, self.label_set.num_classes)
        elif isinstance(part, str):
            if part not in self.label_set.classes:
                known = ", ".join(self.label_set.classes)
                raise QanetError(f"no part {part!r} in {self.label_set.name}", expected=f"one of {known}", got=part)
            wanted = range(self.label_set.classes.index(part), self.label_set.classes.index(part) + 1)
        else:
            wanted = range(int(part), int(part) + 1)
        if person is None:
            labels = self.labels
        else:
            labels = np.zeros(self.image_size, np.uint8)
            x0, y0, x1, y1 = self.people[person].roi
            labels[y0:y1, x0:x1] = self.people[person].labels
        return (labels >= wanted.start) & (labels < wanted.stop)

    def draw(
        self, alpha: float = 0.55, boxes: bool = True, legend: bool = True, max_width: int = 0
    ) -> NDArray[np.uint8]:
        """The image with parts, boxes, scores and a legend over it; (H, W, 3) uint8 BGR.

        Args:
            alpha: how much of the part colours covers the image, 0..1.
            max_width: shrink to this many pixels of width first; 0 keeps the size.
        """
        from qanet.drawing import draw_people

        return draw_people(
            self.image,
            self.labels,
            self.label_set,
            self.people,
            alpha=alpha,
            boxes=boxes,
            legend=legend,
            max_width=max_width,
        )

    def save(self, path: str | Path, **options: Any) -> Path:
        """Write the picture of `draw` to a file; the suffix decides the format.

        Args:
            options: arguments of `draw`.
        Raises:
            QanetError: a suffix that OpenCV does not write, or a folder that is not there.
        """
        from qanet.files import write_bytes

        target = Path(path)
        write_bytes(target, self._encoded(target.suffix or ".png", **options))
        return target

    def show(self, **options: Any) -> None:
        """Show the picture of `draw`: in the notebook, or in the picture viewer of this desktop by Pillow.

        Raises:
            QanetError: neither a notebook nor Pillow.
        """
        try:
            from IPython import get_ipython
            from IPython.display import Image, display

            if get_ipython() is not None:
                display(Image(self._encoded(".png", **options)))
                return
        except ImportError:
            pass
        try:
            from PIL import Image as pillow
        except ImportError as error:
            raise QanetError(
                "no way to show a picture", expected="a notebook or Pillow", next_command="pip install pillow"
            ) from error
        pillow.open(io.BytesIO(self._encoded(".png", **options))).show()

    def _repr_png_(self) -> bytes:
        return self._encoded(".png")

    def _encoded(self, suffix: str, **options: Any) -> bytes:
        import cv2

        try:
            ok, data = cv2.imencode(suffix, self.draw(**options))
        except cv2.error:
            ok = False
        if not ok:
            raise QanetError("no picture format of this name", expected=".png, .jpg or .webp", got=suffix)
        encoded: bytes = data.tobytes()
        return encoded

    def to_json(self, masks: bool = True) -> dict[str, Any]:
        """One document: image size, label set, and the people, as `qanet parse --results` writes them."""
        people = [person.to_json(self.label_set, self.image_size, masks) for person in self.people]
        return {"image_size": list(self.image_size), "label_set": self.label_set.name, "people": people}

    def to_coco(self, image_id: int = 0, parts: bool = False) -> list[dict[str, Any]]:
        """COCO results, which `pycocotools.coco.COCO.loadRes` reads.

        Args:
            image_id: of the image in the annotation file.
            parts: an entry per part, with the class id as the category; else one per person, category 1.
        Returns:
            Entries with image_id, category_id, bbox (xywh pixels), score (the fused quality), segmentation (RLE).
        """
        from qanet.convert import coco_entries

        return coco_entries(self, image_id, parts)

    def to_supervision(self) -> Any:
        """`supervision.Detections`: boxes, silhouettes, quality as confidence, track ids, the other scores in `data`.

        Raises:
            QanetError: supervision is not installed.
        """
        from qanet.convert import supervision_detections

        return supervision_detections(self)

    def to_dataframe(self) -> Any:
        """`pandas.DataFrame`, a row per person: box, scores, track id, and the quality of each part by its name.

        Raises:
            QanetError: pandas is not installed.
        """
        from qanet.convert import dataframe

        return dataframe(self)

    def _column(self, name: str) -> NDArray[np.float32]:
        return np.array([getattr(p, name) for p in self.people], np.float32)

    def _parts(self, name: str) -> NDArray[np.float32]:
        rows = [np.asarray(getattr(p, name)) for p in self.people]
        return np.array(rows, np.float32).reshape(-1, self.label_set.num_classes - 1)


def _rounded(value: float, digits: int = 4) -> float:
    return round(float(value), digits)


def __getattr__(name: str) -> Any:
    renamed = {"ParsingResult": People, "PersonParsing": Person}
    if name not in renamed:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(f"{name} is now {renamed[name].__name__}", DeprecationWarning, stacklevel=2)
    return renamed[name]
