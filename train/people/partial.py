"""Partial labels: ids that say of a pixel that it is one of several classes, and not which.

A suit is a jacket or trousers, a dress cut at the waist may be a top, a silhouette is somebody. Such a pixel asks the
network for the sum of its classes' probabilities. Source: learning from candidate labels, Cour, Sapp and Taskar, JMLR
12 (2011). The ids lie above every class and below void; data sets never hold them in files of their own format.
"""

import numpy as np
from numpy.typing import NDArray

from qanet.labels import CCP59, IGNORE, LabelSet

SOMEBODY = 254  # any class but background
TOP = 253  # a dress whose skirt is out of view
BOTTOM = 252  # a dress whose top is out of view
SUIT = 251  # a garment of two parts in one mask
LEGWEAR = 250  # tights and stockings, of which a photograph's masks seldom say where they end
FIRST = 250  # ids from here to SOMEBODY are partial

_MEMBERS = {  # of label sets that have all of them
    TOP: ("upper-clothes", "dress"),
    BOTTOM: ("skirt", "dress"),
    SUIT: ("upper-clothes", "pants"),
    LEGWEAR: ("skin", "pants"),
}
_SUITS = ("bodysuit", "jumper", "romper", "suit")
_LEGWEAR = ("socks", "stockings", "tights")


def partial_sets(labels: LabelSet) -> dict[int, tuple[int, ...]]:
    """Partial id -> the classes it may be, in this label set."""
    sets = {SOMEBODY: tuple(range(1, labels.num_classes))}
    for partial, names in _MEMBERS.items():
        if set(names) <= set(labels.classes):
            sets[partial] = tuple(labels.classes.index(name) for name in names)
    return sets


def fashion_lookup(labels: LabelSet) -> NDArray[np.uint8]:
    """(256,) raw id of Clothing Co-Parsing -> class or partial id: what the label set leaves void is somebody's."""
    table = labels.lookup.copy()
    known = partial_sets(labels)
    for raw, name in enumerate(CCP59.classes):
        if table[raw] == IGNORE:
            wanted = SUIT if name in _SUITS else LEGWEAR if name in _LEGWEAR else SOMEBODY
            table[raw] = wanted if wanted in known else SOMEBODY
    return table
