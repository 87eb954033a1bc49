"""Label sets: class names, colours, left/right pairs, and the grouping of CCP's 59 labels into 13 classes.

A label set is data, not behaviour: every room looks a class up here and nowhere else. Sources: the official
data sets' class lists (CIHP, LIP, ATR, MHP-v2, Pascal-Person-Part), Clothing Co-Parsing (arXiv 1502.00739),
CelebAMask-HQ. `left` and `right` are the person's own.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from qanet.errors import QanetError

IGNORE = 255  # void: no loss, no metric

# RGB. Found by a search for the largest least distance, over normal sight and the three dichromacies as Machado,
# Oliveira and Fernandes (2009) simulate them: any two of the first 13 are 16 or more apart (CIEDE2000) for each of
# them, any two of all 20 are 10 or more. tests/core/test_drawing.py measures it.
SAFE_COLOURS = 20  # black among them; larger sets take tints that some viewers confuse, so their parts are numbered
_PALETTE = (
    (0, 0, 0),
    (140, 0, 0),
    (190, 255, 230),
    (115, 0, 115),
    (0, 140, 255),
    (255, 190, 255),
    (230, 255, 0),
    (0, 0, 255),
    (60, 60, 60),
    (140, 115, 140),
    (210, 115, 0),
    (165, 190, 140),
    (90, 115, 90),
    (230, 140, 190),
    (115, 210, 60),
    (255, 230, 165),
    (190, 165, 165),
    (190, 60, 30),
    (255, 0, 210),
    (190, 0, 165),
)


def _colours(count: int) -> NDArray[np.uint8]:
    table = np.zeros((count, 3), np.uint8)
    for index in range(count):
        base = np.array(_PALETTE[index if index < len(_PALETTE) else 1 + (index - 1) % (len(_PALETTE) - 1)], float)
        turn = 0 if index < len(_PALETTE) else 1 + (index - len(_PALETTE)) // (len(_PALETTE) - 1)
        if turn:  # beyond the palette: alternate darker and lighter tints of the same hues
            base = base * 0.75**turn if turn % 2 else base + (255 - base) * (1 - 0.7**turn)
        table[index] = np.clip(base, 0, 255)
    return table


@dataclass(frozen=True)
class LabelSet:
    """The classes of one data set; index = class id, 0 = background.

    >>> labels = label_set("cihp20")
    >>> labels.num_classes, labels.classes[14], int(labels.flip_map[14])
    (20, 'left-arm', 15)
    >>> int(CCP13.lookup[CCP59.classes.index("jeans")]), CCP13.classes[6]  # a raw id of CCP -> a class
    (6, 'pants')
    """

    name: str
    classes: tuple[str, ...]
    flip_pairs: tuple[tuple[int, int], ...] = ()
    source_map: tuple[int, ...] = field(default=(), repr=False)  # raw id in the label PNG -> class id or IGNORE

    @property
    def num_classes(self) -> int:
        """Number of classes C, background included."""
        return len(self.classes)

    @property
    def num_raw(self) -> int:
        """Number of ids that a label PNG may hold, 255 (void) apart."""
        return len(self.source_map) or self.num_classes

    @cached_property
    def colours_rgb(self) -> NDArray[np.uint8]:
        """(C, 3) uint8 RGB; colour-blind readers tell the first `SAFE_COLOURS` apart."""
        return _colours(self.num_classes)

    @cached_property
    def flip_map(self) -> NDArray[np.uint8]:
        """(256,) uint8: class id -> class id after a horizontal flip; ids outside the set map to themselves."""
        table = np.arange(256, dtype=np.uint8)
        for left, right in self.flip_pairs:
            table[left], table[right] = right, left
        return table

    @cached_property
    def lookup(self) -> NDArray[np.uint8]:
        """(256,) uint8: raw id in the label file -> class id or IGNORE. Ids outside the set become IGNORE."""
        table = np.full(256, IGNORE, np.uint8)
        source = self.source_map or tuple(range(self.num_classes))
        table[: len(source)] = source
        return table


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


CCP59 = LabelSet(
    "ccp59",
    _names(
        "background accessories bag belt blazer blouse bodysuit boots bra bracelet cape cardigan clogs coat "
        "dress earrings flats glasses gloves hair hat heels hoodie intimate jacket jeans jumper leggings "
        "loafers necklace panties pants pumps purse ring romper sandals scarf shirt shoes shorts skin skirt "
        "sneakers socks stockings suit sunglasses sweater sweatshirt swimwear t-shirt tie tights top vest "
        "wallet watch wedges"
    ),
)

# What each of CCP's 59 labels becomes. Labels left out are ambiguous between two of the 13 classes (a suit is
# jacket and trousers in one mask; rompers and jumpers are top and bottom in one; hosiery is neither garment
# class nor bare skin) or too small to learn (rings, watches): IGNORE, in the loss and in the metric.
CCP13_GROUPS: dict[str, tuple[str, ...]] = {
    "background": ("background",),
    "hat": ("hat",),
    "hair": ("hair",),
    "glasses": ("sunglasses", "glasses"),
    "upper-clothes": (
        "blazer",
        "blouse",
        "cape",
        "cardigan",
        "coat",
        "hoodie",
        "jacket",
        "shirt",
        "sweater",
        "sweatshirt",
        "t-shirt",
        "top",
        "vest",
    ),
    "skirt": ("skirt",),
    "pants": ("pants", "jeans", "leggings", "shorts"),
    "dress": ("dress",),
    "belt": ("belt",),
    "shoes": ("shoes", "boots", "clogs", "flats", "heels", "loafers", "pumps", "sandals", "sneakers", "wedges"),
    "skin": ("skin",),
    "bag": ("bag", "purse", "wallet"),
    "scarf": ("scarf",),
}


def _group(fine: LabelSet, groups: dict[str, tuple[str, ...]]) -> tuple[int, ...]:
    member_of = {member: index for index, members in enumerate(groups.values()) for member in members}
    return tuple(member_of.get(name, IGNORE) for name in fine.classes)


CCP13 = LabelSet("ccp13", tuple(CCP13_GROUPS), source_map=_group(CCP59, CCP13_GROUPS))

_CIHP = (
    "background hat hair glove sunglasses upper-clothes dress coat socks pants {ten} scarf skirt face left-arm "
    "right-arm left-leg right-leg left-shoe right-shoe"
)
CIHP20 = LabelSet("cihp20", _names(_CIHP.format(ten="torso-skin")), ((14, 15), (16, 17), (18, 19)))
LIP20 = LabelSet("lip20", _names(_CIHP.format(ten="jumpsuits")), ((14, 15), (16, 17), (18, 19)))
ATR18 = LabelSet(
    "atr18",
    _names(
        "background hat hair sunglasses upper-clothes skirt pants dress belt left-shoe right-shoe face left-leg "
        "right-leg left-arm right-arm bag scarf"
    ),
    ((9, 10), (12, 13), (14, 15)),
)
MHP59 = LabelSet(
    "mhp59",
    _names(
        "background cap/hat helmet face hair left-arm right-arm left-hand right-hand protector bikini/bra "
        "jacket t-shirt polo sweater singlet torso-skin pants shorts skirt stockings socks left-boot "
        "right-boot left-shoe right-shoe left-highheel right-highheel left-sandal right-sandal left-leg right-leg "
        "left-foot right-foot coat dress robe jumpsuit other-full headwear backpack ball bats belt bottle "
        "carrybag cases sunglasses eyewear glove scarf umbrella wallet watch wristband tie other-accessory "
        "other-upper other-lower"
    ),
    ((5, 6), (7, 8), (22, 23), (24, 25), (26, 27), (28, 29), (30, 31), (32, 33)),
)
# Two orders of the same classes are in use; ppp7 is the default, the other is for files and checkpoints that have it.
PPP7 = LabelSet("ppp7", _names("background head torso upper-arms lower-arms upper-legs lower-legs"))
PPP7_ARMS_FIRST = LabelSet(
    "ppp7-arms-first", _names("background lower-arms head upper-legs torso lower-legs upper-arms")
)
CELEBAMASK19 = LabelSet(
    "celebamask19",
    _names(
        "background skin nose eyeglasses left-eye right-eye left-brow right-brow left-ear right-ear mouth "
        "upper-lip lower-lip hair hat earring necklace neck cloth"
    ),
    ((4, 5), (6, 7), (8, 9)),
)

PERSON1 = LabelSet("person1", ("background", "person"))  # instance masks: one logit, the sigmoid is the person
PERSON_BOX1 = LabelSet("personbox1", ("background", "person"))  # detection: boxes and scores, no pixels

LABEL_SETS = {
    s.name: s
    for s in (CCP13, CCP59, CIHP20, LIP20, ATR18, MHP59, PPP7, PPP7_ARMS_FIRST, CELEBAMASK19, PERSON1, PERSON_BOX1)
}


def label_set(name: str) -> LabelSet:
    """The label set of that name; QanetError with the known names otherwise.

    >>> label_set("ppp7").classes[1:4]
    ('head', 'torso', 'upper-arms')
    """
    if name not in LABEL_SETS:
        raise QanetError(f"unknown label set {name!r}", expected=f"one of {', '.join(LABEL_SETS)}", got=name)
    return LABEL_SETS[name]
