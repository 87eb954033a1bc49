"""A data set of six drawn people in CCP's layout, for tests that must not need real photographs."""

import cv2
import numpy as np
import pytest
import torch

HAIR, PANTS, SUIT = 19, 31, 46  # raw ids of CCP's 59


# The networks of these tests are tiny: more threads would only wait for each other.
torch.set_num_threads(1)


@pytest.fixture
def small_ccp(tmp_path):
    """photos/, labels/, train.txt (p0..p3) and val.txt (p4, p5): red hair, blue pants, a grey suit, 100x80 pixels."""
    root = tmp_path / "ccp"
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
