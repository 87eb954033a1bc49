"""Tiny pictures of people for the metrics: drawn as text, with predictions of one score, and random ones."""

import numpy as np

from qanet.metrics import Prediction, Truth


def grid(*rows):
    """Rows of digits, one character a pixel; "." is 0, "v" void."""
    table = str.maketrans({".": "0"})
    return np.array([[255 if c == "v" else int(c) for c in row.translate(table)] for row in rows], np.uint8)


def person(labels, score=0.9, *, classes=3, box=None, parts=None, roi=None):
    box = score if box is None else box
    return Prediction(labels, box, score, score, np.full(classes - 1, score) if parts is None else parts, roi)


# two people of two classes each; person 1 on the left, person 2 on the right
CATEGORY = grid("11..11..", "22..22..", "22..22..", "........")
HUMAN = grid("11..22..", "11..22..", "11..22..", "........")
LEFT, RIGHT = CATEGORY * (HUMAN == 1), CATEGORY * (HUMAN == 2)


def random_images(rng, count=6, classes=5, hw=(33, 29)):
    """Images of overlapping rectangles with void, and predictions that are noisy copies."""
    truths, predictions = [], []
    for _ in range(count):
        human = np.zeros(hw, np.uint8)
        for i in range(int(rng.integers(0, 4))):
            y, x = rng.integers(0, 20, 2)
            human[y : y + 12, x : x + 9] = 3 * i + 2
        category = np.where(human > 0, rng.integers(0, classes, hw), 0).astype(np.uint8)
        category[rng.random(hw) < 0.05] = 255
        truths.append(Truth(category, human))
        people = []
        for i in [*np.unique(human[human > 0]), 99]:
            labels = np.where((human == i) & (category < classes), category, 0)
            noise = rng.random(hw) < 0.2 * (human > 0)
            labels = np.where(noise, rng.integers(0, classes, hw), labels).astype(np.uint8)
            scores = rng.random(3).astype(np.float32)
            people.append(Prediction(labels, *scores, rng.random(classes - 1).astype(np.float32)))
        predictions.append(people)
    return truths, predictions
