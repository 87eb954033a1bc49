"""What CCP's 59 labels mean in the other label sets.

CCP knows no limbs and no left or right: its `skin` is the face, the arms and the legs alike. Where a set wants more
than CCP tells, the place decides: the height within the person's box (0 = top) by bands, and the side by the middle of
the box, the person taken to face the camera (the person's left is on the right of the image). That is no anatomy, only
a fixed rule that gives every layout all kinds of classes to be read, trained on and measured; what has no clear
counterpart is void.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from qanet.errors import QanetError
from qanet.labels import CCP59, IGNORE, LabelSet

Bands = tuple[tuple[float, str], ...]  # (height up to which, class); "*-x" is left-x or right-x by the side

_SKIN: Bands = ((0.2, "face"), (0.55, "*-arm"), (1.0, "*-leg"))
_PPP_SKIN: Bands = (
    (0.2, "head"),
    (0.35, "upper-arms"),
    (0.55, "lower-arms"),
    (0.75, "upper-legs"),
    (1.0, "lower-legs"),
)
_FEET = "shoes boots clogs flats heels loafers pumps sandals sneakers wedges"
_LAYERS = "blazer cape cardigan coat jacket"
_TOPS = "blouse hoodie shirt sweater sweatshirt t-shirt top vest"
_LEGWEAR = "pants jeans leggings shorts"

_CIHP: dict[str, str | Bands] = {
    "hat": "hat",
    "hair": "hair",
    "gloves": "glove",
    "sunglasses glasses": "sunglasses",
    _TOPS: "upper-clothes",
    "dress": "dress",
    _LAYERS: "coat",
    "socks stockings tights": "socks",
    _LEGWEAR: "pants",
    "scarf": "scarf",
    "skirt": "skirt",
    "skin": _SKIN,
    _FEET: "*-shoe",
    "bag purse wallet": "background",
}
_TABLES: dict[str, dict[str, str | Bands]] = {
    "cihp20": {**_CIHP},
    "lip20": {**_CIHP, "romper jumper": "jumpsuits"},
    "atr18": {
        "hat": "hat",
        "hair": "hair",
        "sunglasses glasses": "sunglasses",
        f"{_TOPS} {_LAYERS}": "upper-clothes",
        "skirt": "skirt",
        _LEGWEAR: "pants",
        "dress": "dress",
        "belt": "belt",
        _FEET: "*-shoe",
        "skin": _SKIN,
        "bag purse wallet": "bag",
        "scarf": "scarf",
    },
    "mhp59": {
        "hat": "cap/hat",
        "hair": "hair",
        "skin": _SKIN,
        "bra swimwear": "bikini/bra",
        "blazer jacket": "jacket",
        "t-shirt": "t-shirt",
        "cardigan hoodie sweater sweatshirt": "sweater",
        "pants jeans leggings": "pants",
        "shorts": "shorts",
        "skirt": "skirt",
        "stockings tights": "stockings",
        "socks": "socks",
        "boots": "*-boot",
        "clogs flats loafers shoes sneakers": "*-shoe",
        "heels pumps wedges": "*-highheel",
        "sandals": "*-sandal",
        "cape coat": "coat",
        "dress": "dress",
        "romper jumper": "jumpsuit",
        "belt": "belt",
        "bag purse": "carrybag",
        "sunglasses": "sunglasses",
        "glasses": "eyewear",
        "gloves": "glove",
        "scarf": "scarf",
        "wallet": "wallet",
        "watch": "watch",
        "bracelet": "wristband",
        "tie": "tie",
        "accessories earrings necklace ring": "other-accessory",
        "blouse bodysuit intimate shirt top vest": "other-upper",
        "panties": "other-lower",
    },
    "ppp7": {
        "hat hair sunglasses glasses earrings": "head",
        f"{_TOPS} {_LAYERS} dress scarf tie necklace": "torso",
        f"{_LEGWEAR} skirt socks stockings tights": ((0.75, "upper-legs"), (1.0, "lower-legs")),
        "skin": _PPP_SKIN,
        _FEET: "lower-legs",
        "bag purse wallet": "background",
    },
}


@cache
def rules(labels: LabelSet) -> dict[int, Bands]:
    """CCP id -> bands of a label set's class names; ids left out are void.

    Raises:
        QanetError: a set without people's bodies, such as faces.
    """
    if labels.source_map and len(labels.source_map) == CCP59.num_classes:  # grouped CCP: the groups are the meaning
        return {i: ((1.0, labels.classes[c]),) for i, c in enumerate(labels.source_map) if c != IGNORE}
    if labels.classes == CCP59.classes:
        return {i: ((1.0, name),) for i, name in enumerate(CCP59.classes)}
    name = "ppp7" if labels.name.startswith("ppp7") else labels.name
    if name not in _TABLES:
        known = ", ".join(("ccp13", "ccp59", *_TABLES))
        raise QanetError(f"CCP's people cannot be told in {labels.name}", expected=f"one of {known}", got=labels.name)
    found: dict[int, Bands] = {0: ((1.0, "background"),)}
    for members, target in _TABLES[name].items():
        for member in members.split():
            found[CCP59.classes.index(member)] = ((1.0, target),) if isinstance(target, str) else target
    return found


def translate(raw: NDArray[np.uint8], labels: LabelSet) -> NDArray[np.uint8]:
    """A person's CCP labels, cut to the person's box, in another label set.

    Args:
        raw: (h, w) ids of CCP's 59, the person upright and filling the map.
    Returns:
        (h, w) uint8 class ids, void where CCP's label has no counterpart.
    """
    height, width = raw.shape
    depth = (np.arange(height)[:, None] + 0.5) / height
    on_left = np.arange(width)[None, :] >= width / 2  # the person's left
    out = np.full(raw.shape, IGNORE, np.uint8)
    table = rules(labels)
    for raw_id in np.flatnonzero(np.bincount(raw.ravel(), minlength=256)):
        here, above = raw == raw_id, 0.0
        for until, target in table.get(int(raw_id), ()):
            band = here & (depth >= above) & (depth < until)
            above = until
            if target.startswith("*-"):
                out[band & on_left] = labels.classes.index(f"left-{target[2:]}")
                out[band & ~on_left] = labels.classes.index(f"right-{target[2:]}")
            else:
                out[band] = labels.classes.index(target)
    return out
