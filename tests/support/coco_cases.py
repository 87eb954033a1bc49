"""A COCO data set of drawn people (ellipses), small and exact, in COCO's own folders."""

import json
from pathlib import Path

import numpy as np

from qanet.rle import encode

SIDE = 96  # pixels of a square image


def ellipse(cx: float, cy: float, rx: float, ry: float, side: int = SIDE) -> np.ndarray:
    """(side, side) uint8 of 0 and 1."""
    y, x = np.mgrid[:side, :side] + 0.5
    return (((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 <= 1).astype(np.uint8)


def annotation(number: int, image_id: int, mask: np.ndarray, **others) -> dict:
    """A run-length annotation of a person with its tight box."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x0, y0, x1, y1 = (int(v) for v in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
    return {
        "id": number,
        "image_id": image_id,
        "category_id": 1,
        "iscrowd": 0,
        "area": int(mask.sum()),
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "segmentation": encode(mask),
        **others,
    }


def write_people(root: Path, split: str, count: int, seed: int) -> Path:
    """`count` images of two ellipses each, the right one in front where they touch; the annotation file's path."""
    import cv2

    rng = np.random.default_rng(seed)
    images, annotations = [], []
    (root / split).mkdir(parents=True)
    (root / "annotations").mkdir(exist_ok=True)
    for number in range(1, count + 1):
        pixels = rng.integers(0, 90, (SIDE, SIDE, 3))
        people = [
            ellipse(centre + rng.uniform(-4, 4), rng.uniform(40, 56), rng.uniform(11, 20), rng.uniform(24, 36))
            for centre in (28, 68)
        ]
        people[0] &= 1 - people[1]
        for mask in people:
            pixels[mask > 0] = np.array([60, 90, 200]) + rng.integers(-40, 40, (int(mask.sum()), 3))
            annotations.append(annotation(len(annotations) + 1, number, mask))
        cv2.imwrite(str(root / split / f"{number:03}.png"), pixels.astype(np.uint8))
        images.append({"id": number, "file_name": f"{number:03}.png", "height": SIDE, "width": SIDE})
    path = root / "annotations" / f"instances_{split}.json"
    categories = [{"id": 1, "name": "person"}, {"id": 2, "name": "bicycle"}]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path
