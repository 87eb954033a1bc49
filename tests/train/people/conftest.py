"""A folder of two silhouettes on photographs of the drawn people."""

import cv2
import numpy as np
import pytest

from qanet.labels import IGNORE
from qanet.train.data.people import ANY_CLASS, Person, write_index


@pytest.fixture
def silhouettes(small_ccp, tmp_path):
    """people.json and labels/: p0 and p1 of `small_ccp` in the box of their paint, a stripe of each void."""
    root = tmp_path / "silhouettes"
    (root / "labels").mkdir(parents=True)
    labels = np.zeros((100, 80), np.uint8)
    labels[10:90, 20:60] = ANY_CLASS
    labels[50:54, 20:60] = IGNORE
    people = []
    for name in ("p0", "p1"):
        cv2.imwrite(str(root / "labels" / f"{name}.png"), labels)
        people.append(Person(name, str(small_ccp / "photos" / f"{name}.png"), (20.0, 10.0, 60.0, 90.0)))
    write_index(root, people)
    return root
