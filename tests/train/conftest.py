"""Small data sets drawn in code: six people in the layout of CCP, and silhouettes of two of them."""

import cv2
import numpy as np
import pytest
import torch

from qanet.labels import IGNORE
from qanet.train.data.people import ANY_CLASS, Person, write_index

HAIR, PANTS, SUIT = 19, 31, 46  # raw ids of CCP's 59


# The networks of these tests are tiny: more threads would only wait for each other.
torch.set_num_threads(1)


@pytest.fixture
def small_ccp(tmp_path):
    """photos/, labels/, train.txt (p0..p3) and val.txt (p4, p5): red hair, blue pants, a grey suit, 100x80 pixels."""
    return _draw_ccp(tmp_path / "ccp")


@pytest.fixture(scope="module")
def small_ccp_of_the_module(tmp_path_factory):
    """`small_ccp` for all tests of a file, which must not change it."""
    return _draw_ccp(tmp_path_factory.mktemp("data") / "ccp")


def _draw_ccp(root):
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
