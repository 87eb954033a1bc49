"""Tiny pictures of people for the metrics: drawn as text, with predictions of one score."""

import numpy as np

from qanet.metrics import Prediction


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
