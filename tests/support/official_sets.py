"""Drawn data sets in the official layout and CCP's, small enough to break one file at a time."""

import json
from pathlib import Path

import cv2
import numpy as np

HW = (40, 60)
SPLITS = {"train": "Training", "val": "Validation", "test": "Testing"}


def write_official(root: Path, name: str = "CIHP", split: str = "val", *, with_people: bool = True, people: int = 2):
    """Two images, `a` of `people` people and `b` of one: heads of class 1 over bodies of class 2, void at the feet.

    Person p is 10 wide from x = 5 + 20 p, rows 5..34; its head is rows 5..14, its body 15..29, its void 30..34.
    """
    folder = root / SPLITS[split]
    kinds = ("Images", "Category_ids", *(("Human_ids", "Instance_ids") if with_people else ()))
    for kind in kinds:
        (folder / kind).mkdir(parents=True, exist_ok=True)
    (root / "annotations").mkdir(exist_ok=True)
    images, annotations = [], []
    for image_id, (stem, count) in enumerate((("a", people), ("b", 1)), start=1):
        category, human, parts = (np.zeros(HW, np.uint8) for _ in range(3))
        lines = []
        for p in range(count):
            columns = slice(5 + 20 * p, 15 + 20 * p)
            category[5:15, columns], category[15:30, columns], category[30:35, columns] = 1, 2, 255
            human[5:35, columns] = p + 1
            parts[5:15, columns], parts[15:30, columns] = 2 * p + 1, 2 * p + 2
            lines += [f"{2 * p + 1} 1 {p + 1}", f"{2 * p + 2} 2 {p + 1}"]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": 1,
                    "iscrowd": 0,
                    "area": 300,
                    "bbox": [5 + 20 * p, 5, 10, 30],
                    "parsing_id": p + 1,
                }
            )
        image = np.full((*HW, 3), 120, np.uint8)
        image[human > 0] = (0, 0, 200)
        cv2.imwrite(str(folder / "Images" / f"{stem}.jpg"), image)
        cv2.imwrite(str(folder / "Category_ids" / f"{stem}.png"), category)
        if with_people:
            cv2.imwrite(str(folder / "Human_ids" / f"{stem}.png"), human)
            cv2.imwrite(str(folder / "Instance_ids" / f"{stem}.png"), parts)
            (folder / "Instance_ids" / f"{stem}.txt").write_text("\n".join(lines) + "\n")
        images.append({"id": image_id, "file_name": f"{stem}.jpg", "height": HW[0], "width": HW[1]})
    document = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}
    (root / "annotations" / f"{name}_{split}.json").write_text(json.dumps(document))
    return root


def edit_json(path: Path, change) -> None:
    """Change a JSON file's document in place."""
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def write_ccp(root: Path, people: int = 8, hw=(120, 80)) -> Path:
    """photos/, labels/, train.txt (all but the last three) and val.txt; everybody a colour of their own.

    Hair (19) rows 10..29, a t-shirt (51) 30..59, jeans (25) 60..99, shoes (39) 100..109, a bag (2) beside.
    """
    (root / "photos").mkdir(parents=True)
    (root / "labels").mkdir()
    rng = np.random.default_rng(3)
    for number in range(people):
        image = rng.integers(90, 160, (*hw, 3)).astype(np.uint8)
        raw = np.zeros(hw, np.uint8)
        for rows, raw_id in ((slice(10, 30), 19), (slice(30, 60), 51), (slice(60, 100), 25), (slice(100, 110), 39)):
            raw[rows, 28:52] = raw_id
        raw[50:70, 52:60] = 2
        image[raw > 0] = ((10 + 30 * number) % 256, (255 - 30 * number) % 256, 40)
        cv2.imwrite(str(root / "photos" / f"p{number}.png"), image)
        cv2.imwrite(str(root / "labels" / f"p{number}.png"), raw)
    names = [f"p{number}\n" for number in range(people)]
    (root / "train.txt").write_text("".join(names[:-3]))
    (root / "val.txt").write_text("".join(names[-3:]))
    return root
