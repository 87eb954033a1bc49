"""Photographs that end within a person: head and shoulders, upper and lower halves, cuts from the left and right.

Street fashion shows people whole; photographs of daily life cut them at every border, and a detector's box then holds
what is left. Half-seen garments keep only what can be seen: a dress without its skirt may be a top.
"""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from qanet.datasets import Sample, person_box
from qanet.labels import IGNORE, LabelSet
from qanet.train.people.partial import BOTTOM, TOP

_BORDER = 0.7  # share of cuts at which the photograph ends; at the others only the box does
_WHOLE = 0.75  # of a dress in view: it is one for all to see
_LEAST_SHARE = 0.04  # of the window that is the person's; else the cut is not made
_MARGIN = 0.12  # of the window beside a box that alone ends


def random_window(rng: np.random.Generator) -> tuple[float, float, float, float]:
    """x0, y0, x1, y1 as shares of a person's box: what stays in view."""
    x0, y0, x1, y1 = 0.0, 0.0, 1.0, 1.0
    kind = rng.choice(5, p=(0.2, 0.3, 0.12, 0.18, 0.2))
    if kind == 0:  # head and shoulders
        y1 = rng.uniform(0.14, 0.38)
    elif kind == 1:  # to the waist, to the knees
        y1 = rng.uniform(0.35, 0.8)
    elif kind == 2:  # without the head
        y0 = rng.uniform(0.1, 0.65)
    if kind == 4:
        y1 = rng.uniform(0.25, 0.9)
    if kind >= 3:  # from one side
        kept = rng.uniform(0.35, 0.85)
        x0, x1 = (0.0, kept) if rng.random() < 0.5 else (1 - kept, 1.0)
    return x0, y0, x1, y1


def cut(sample: Sample, labels: LabelSet, rng: np.random.Generator) -> Sample:
    """The sample cut at random; itself where too little of the person would stay."""
    share = random_window(rng)
    x0, y0, x1, y1 = sample.box.tolist()
    height, width = sample.labels.shape
    left, right = (x0 + s * (x1 - x0) for s in share[::2])
    top, bottom = (y0 + s * (y1 - y0) for s in share[1::2])
    rows = slice(max(0, int(top)) if share[1] > 0 else 0, min(height, int(bottom) + 1) if share[3] < 1 else height)
    columns = slice(max(0, int(left)) if share[0] > 0 else 0, min(width, int(right) + 1) if share[2] < 1 else width)
    seen = sample.labels[rows, columns]
    mine = (seen != 0) & (seen != IGNORE)
    if seen.size == 0 or mine.mean() < _LEAST_SHARE:
        return sample
    box = _visible_box(mine, sample.box, rows, columns)
    whole = _half_seen(sample.labels, (rows, columns), labels)
    if rng.random() < _BORDER:
        image = sample.image[rows, columns]
        return dataclasses.replace(sample, image=image, labels=whole[rows, columns], box=box)
    return dataclasses.replace(sample, labels=whole, box=box + np.array([columns.start, rows.start] * 2, np.float32))


def _visible_box(mine: NDArray[np.bool_], box: NDArray[np.float32], rows: slice, columns: slice) -> NDArray[np.float32]:
    """(4,) xyxy in the window: of the person's pixels in view, within the box."""
    found = person_box(mine)
    old = box - np.array([columns.start, rows.start] * 2, np.float32)
    least, most = np.maximum(found[:2], old[:2]), np.minimum(found[2:], old[2:])
    return np.concatenate([least, most]) if (most > least + 4).all() else found


def _half_seen(labels: NDArray[np.uint8], window: tuple[slice, slice], classes: LabelSet) -> NDArray[np.uint8]:
    """Labels with a dress of which too little is in view as what it may be."""
    if "dress" not in classes.classes or "skirt" not in classes.classes:
        return labels
    dress = labels == classes.classes.index("dress")
    count = int(dress.sum())
    if not count or dress[window].sum() >= _WHOLE * count:
        return labels
    from_above = dress[: window[0].start].sum() < dress[window[0].stop :].sum()
    return np.where(dress, TOP if from_above else BOTTOM, labels).astype(np.uint8)
