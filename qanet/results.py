"""What a parsed image is: people with labels and scores, drawable and writable as JSON."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet import rle
from qanet.errors import QanetError
from qanet.labels import LabelSet


@dataclass
class PersonParsing:
    """One person: where, what each pixel is, and how far each part can be trusted."""

    box: NDArray[np.float32]  # (4,) xyxy pixels, as detected
    box_score: float  # the detector's
    iou_score: float  # the network's guess of its own mean IoU, in [0, 1]
    pixel_score: float  # mean confidence of the pixels above the threshold
    quality: float  # QAM: the three fused
    part_scores: NDArray[np.float32]  # (C - 1,) pixel score of each part, 0 where it has no pixel
    part_quality: NDArray[np.float32]  # (C - 1,) QAM with the part's pixel score
    labels: NDArray[np.uint8]  # (y1 - y0, x1 - x0) class of each pixel of the region
    roi: tuple[int, int, int, int]  # x0 y0 x1 y1, the region in whole image pixels
    track_id: int | None = None  # in video

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
            if masks:
                part["rle"] = mask
            parts.append(part)
        scores = {"box_score": self.box_score, "iou_score": self.iou_score, "pixel_score": self.pixel_score}
        record: dict[str, Any] = {"box_xyxy": [_rounded(v, 2) for v in self.box]}
        record |= {key: _rounded(value) for key, value in scores.items()}
        record |= {"quality": _rounded(self.quality), "parts": parts}
        if self.track_id is not None:
            record["track_id"] = self.track_id
        return record


@dataclass
class ParsingResult:
    """All people of one image, best quality first, and the image's label map painted by quality."""

    image: NDArray[np.uint8]  # (H, W, 3) uint8 BGR, as given
    label_set: LabelSet
    people: list[PersonParsing]

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or self.image.shape[2] != 3 or self.image.dtype != np.uint8:
            got = f"{self.image.dtype} {self.image.shape}"
            raise QanetError("a result's image does not fit", expected="uint8 (H, W, 3)", got=got)
        self.people = sorted(self.people, key=lambda p: -p.quality)

    def __len__(self) -> int:
        return len(self.people)

    def __iter__(self) -> Iterator[PersonParsing]:
        return iter(self.people)

    def __getitem__(self, index: int) -> PersonParsing:
        return self.people[index]

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) pixels."""
        return self.image.shape[0], self.image.shape[1]

    @property
    def labels(self) -> NDArray[np.uint8]:
        """(H, W) uint8: foreground labels, painted in ascending quality, so the best person is on top."""
        canvas = np.zeros(self.image_size, np.uint8)
        for person in reversed(self.people):
            x0, y0, x1, y1 = person.roi
            region = canvas[y0:y1, x0:x1]
            np.copyto(region, person.labels, where=person.labels > 0)
        return canvas

    def to_json(self, masks: bool = True) -> dict[str, Any]:
        """One document: image size, label set, and the people."""
        people = [person.to_json(self.label_set, self.image_size, masks) for person in self.people]
        return {"image_size": list(self.image_size), "label_set": self.label_set.name, "people": people}

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


def _rounded(value: float, digits: int = 4) -> float:
    return round(float(value), digits)
