"""A data set of drawn people in CCP's layout, and silhouettes of two of them, for tests without photographs."""

from pathlib import Path

import cv2
import numpy as np

from qanet.labels import IGNORE
from qanet.train.data.people import ANY_CLASS, Person, write_index

HAIR, PANTS, SUIT = 19, 31, 46  # raw ids of CCP's 59


def write_small_ccp(root: Path) -> Path:
    """photos/, labels/, train.txt (p0..p3) and val.txt (p4, p5): red hair, blue pants, a grey suit, 100x80 pixels."""
    (root / "photos").mkdir(parents=True)
    (root / "labels").mkdir()
    for number in range(6):
        image = np.full((100, 80, 3), 200, np.uint8)
        raw = np.zeros((100, 80), np.uint8)
        for rows, raw_id, colour in (
            (slice(10, 35), HAIR, (0, 0, 255)),
            (slice(35, 50), SUIT, (90, 90, 90)),
            (slice(50, 90), PANTS, (255, 0, 0)),
        ):
            image[rows, 20:60], raw[rows, 20:60] = colour, raw_id
        cv2.imwrite(str(root / "photos" / f"p{number}.png"), image)
        cv2.imwrite(str(root / "labels" / f"p{number}.png"), raw)
    (root / "train.txt").write_text("p0\np1\np2\np3\n")
    (root / "val.txt").write_text("p4\np5\n")
    return root


def write_silhouettes(root: Path, ccp: Path) -> Path:
    """people.json and labels/: p0 and p1 of `write_small_ccp` in the box of their paint, a stripe of each void."""
    (root / "labels").mkdir(parents=True)
    labels = np.zeros((100, 80), np.uint8)
    labels[10:90, 20:60] = ANY_CLASS
    labels[50:54, 20:60] = IGNORE
    people = []
    for name in ("p0", "p1"):
        cv2.imwrite(str(root / "labels" / f"{name}.png"), labels)
        people.append(Person(name, str(ccp / "photos" / f"{name}.png"), (20.0, 10.0, 60.0, 90.0)))
    write_index(root, people)
    return root
