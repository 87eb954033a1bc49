"""Cases of the pixel score (crowds, single people, sweeps), and the check of an answer against the reference.

The logits are made, not a network's: horizontal bands of classes under noise, so that every class wins somewhere and
most pixels are certain. Shapes decide how long most forms take. The native one also looks at fewer classes where
neighbouring cells agree: noise from cell to cell is hard for it, and the "smooth" cases, whose noise is of patches
of 8 x 8 cells, are like a parsed person.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.quality import PixelScores

LABELS_MAY_DIFFER = 1e-5  # share of a region's pixels: ties that rounding decides
SCORES_MAY_DIFFER = 1e-4

FULL_HD = (1080, 1920)
_AREAS = (50_000, 100_000, 200_000, 400_000, 800_000)  # pixels
_IMAGES = ((480, 640), (720, 1280), (1080, 1920), (2160, 3840))
_CLASSES = (7, 20, 59)
_BAND_LOGIT = 4.0
_PATCH = 8  # cells of a smooth case that have their noise in common


@dataclass(frozen=True)
class Case:
    """One call of the tail.

    Attributes:
        name: unique among the cases.
        group: "people" for whole frames; "area", "image" and "classes" for the points of a sweep.
        num_classes, map_hw: shape of a person's logits, (C, h, w).
        image_hw: pixels.
        boxes: x0 y0 x1 y1 of each person, image pixels.
        is_smooth: patches of noise instead of noise from cell to cell, and borders between bands on patches' edges.
    """

    name: str
    group: str
    num_classes: int
    map_hw: tuple[int, int]
    image_hw: tuple[int, int]
    boxes: tuple[tuple[float, float, float, float], ...]
    is_smooth: bool = False

    @property
    def area(self) -> int:
        """Pixels of all boxes together."""
        return round(sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in self.boxes))

    def logits(self) -> NDArray[np.float32]:
        """(N, C, h, w) float32, the same numbers each time."""
        height, width = self.map_hw
        shape = (len(self.boxes), self.num_classes, height, width)
        maps = np.random.default_rng(0).standard_normal(shape, np.float32)
        band = np.arange(height) * self.num_classes // height  # the class of each row
        maps[:, band, np.arange(height)] += np.float32(_BAND_LOGIT)
        if self.is_smooth:
            patches = maps[:, :, ::_PATCH, ::_PATCH].repeat(_PATCH, 2).repeat(_PATCH, 3)
            maps = np.ascontiguousarray(patches[:, :, :height, :width])
        return maps

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of any form of the pixel score."""
        return {"logits": self.logits(), "boxes": np.array(self.boxes, np.float32), "image_size": self.image_hw}

    def floor_bytes(self) -> int:
        """Least traffic of any form: the logits read once and a byte per pixel of label written once."""
        height, width = self.map_hw
        return len(self.boxes) * self.num_classes * height * width * 4 + self.area

    def describe(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "name": self.name,
            "group": self.group,
            "people": len(self.boxes),
            "classes": self.num_classes,
            "map_hw": list(self.map_hw),
            "image_hw": list(self.image_hw),
            "area": self.area,
            "floor_bytes": self.floor_bytes(),
        }


def box_of(area: float, left: float = 40.0, top: float = 40.0) -> tuple[float, float, float, float]:
    """A box of so many pixels, three wide to four high, with its corner on no pixel's edge."""
    height = (area * 4 / 3) ** 0.5
    return left + 0.25, top + 0.5, left + 0.25 + height * 3 / 4, top + 0.5 + height


def all_cases() -> list[Case]:
    """Five people, one person, and the sweeps."""
    crowd = tuple(box_of(400_000, 10 + 330 * i, 100 + 60 * (i % 3)) for i in range(5))
    cases = [
        Case("5 people, 1080p, C 20", "people", 20, (128, 96), FULL_HD, crowd),
        Case("1 person, 720p, C 13", "people", 13, (96, 72), (720, 1280), (box_of(300_000),)),
    ]
    cases += [replace(case, name=f"{case.name}, smooth", is_smooth=True) for case in cases]
    cases += [Case(f"area {area // 1000}k", "area", 20, (128, 96), FULL_HD, (box_of(area, 40, 5),)) for area in _AREAS]
    cases += [
        Case(f"image {width}x{height}", "image", 20, (128, 96), (height, width), (box_of(100_000),))
        for height, width in _IMAGES
    ]
    cases += [Case(f"C {c}", "classes", c, (128, 96), FULL_HD, (box_of(400_000),)) for c in _CLASSES]
    return cases


def difference(got: PixelScores, expected: PixelScores) -> str | None:
    """How two answers differ beyond rounding; None where they do not. Regions may differ, not the labels in them."""
    if len(got.labels) != len(expected.labels):
        return f"{len(got.labels)} label maps where {len(expected.labels)} are due"
    for index, region in enumerate(expected.labels):
        wrong = int((got.full(index) != expected.full(index)).sum())
        if wrong > LABELS_MAY_DIFFER * max(region.size, 1):
            return f"person {index}: {wrong} of {region.size} labels differ from the reference"
    for name in ("pixel_scores", "part_scores"):
        ours, theirs = getattr(got, name), getattr(expected, name)
        if ours.shape != theirs.shape or not np.all(np.abs(ours - theirs) <= SCORES_MAY_DIFFER):
            return f"{name} differ from the reference by more than {SCORES_MAY_DIFFER:g}"
    return None
