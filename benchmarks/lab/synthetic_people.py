"""The people and backgrounds of synthetic scenes, out of CCP's photographs, with CCP's labels in another label set.

CCP has no limbs and no left or right: its `skin` is the face, the arms and the legs alike. Where a label set needs
more, the place decides: the height within the person's box (0 = top) by bands, and the side by the middle of the box,
for a person who faces the camera (the person's left is on the right of the image). That is no anatomy, only a fixed
rule that gives every layout all kinds of classes to read, train on and measure. A class without a clear counterpart is
void.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qanet.datasets import PhotoFolder, person_box
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
_MARGIN_PX = 3  # of the photograph around the person, for the feathered edge
_STRIP_PX = 30  # least width of the street beside a person that can be mirrored
_BLENDED = 0.4  # of the hole's width: where the mirrored left turns into the mirrored right
_GROWTH_PX = 9  # of the hole beyond the mask: hair, straps and shadows at the contour


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
        raise QanetError(f"CCP's people have no labels of {labels.name}", expected=f"one of {known}", got=labels.name)
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


@dataclass(frozen=True, eq=False)
class Cutout:
    """A person: image (h, w, 3) uint8 BGR, labels (h, w) uint8 with void, mask (h, w) bool, all with a margin."""

    name: str
    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    mask: NDArray[np.bool_]


class People:
    """The people and backgrounds of one split of CCP, and of no other."""

    def __init__(self, root: Path, split: str, labels: LabelSet):
        self.source = source_split(root, split)
        self.labels = labels
        self._photos = PhotoFolder(root, CCP59, self.source)

    def __len__(self) -> int:
        return len(self._photos)

    def name(self, index: int) -> str:
        """The photograph of that index."""
        return self._photos.names[index]

    def cutout(self, index: int) -> Cutout | None:
        """The person of that index; None where the label map is empty."""
        sample = self._photos[index]
        raw = self._photos.raw_labels(index)
        if not raw.any():
            return None
        x0, y0, x1, y1 = person_box(raw).astype(int)
        person = translate(raw[y0:y1, x0:x1], self.labels)
        top, left = max(y0 - _MARGIN_PX, 0), max(x0 - _MARGIN_PX, 0)
        window = (slice(top, y1 + _MARGIN_PX), slice(left, x1 + _MARGIN_PX))
        labels = np.zeros(raw.shape, np.uint8)
        labels[y0:y1, x0:x1] = person
        return Cutout(sample.name, sample.image[window], labels[window], raw[window] != 0)

    def background(self, index: int) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 BGR: a photograph without its person.

        The hole is filled with the street at its left and right, mirrored at the hole's box and blended in the middle;
        the edge is blended over the hole's margin. People beyond the annotated one stay: CCP does not mark them.
        """
        import cv2

        image, raw = self._photos[index].image, self._photos.raw_labels(index)
        if not raw.any():
            return image
        hole = cv2.dilate((raw != 0).astype(np.uint8), _disc(2 * _GROWTH_PX + 1))
        alpha = cv2.GaussianBlur(hole.astype(np.float32), (0, 0), _GROWTH_PX / 3)[..., None]
        x0, _, x1, _ = person_box(hole).astype(int)
        filled = mirrored_street(image, int(x0), int(x1))
        return np.clip(image * (1 - alpha) + filled * alpha + 0.5, 0, 255).astype(np.uint8)


def mirrored_street(image: NDArray[np.uint8], x0: int, x1: int) -> NDArray[np.float32]:
    """(H, W, 3) float32: columns x0..x1 replaced by what is left of x0 and right of x1, mirrored there.

    A strip narrower than _STRIP_PX is not used; without one the whole photograph is blurred beyond recognition.
    """
    import cv2

    width = image.shape[1]
    columns = np.arange(width)
    left, right = x0, width - x1  # the strips' widths
    if max(left, right) < _STRIP_PX:
        return np.asarray(cv2.GaussianBlur(image, (0, 0), width / 8), np.float32)
    from_left = image[:, np.where(columns < x0, columns, x0 - 1 - _wave(columns - x0, left))]
    from_right = image[:, np.where(columns >= x1, columns, x1 + _wave(x1 - 1 - columns, right))]
    if min(left, right) < _STRIP_PX:
        return (from_left if left > right else from_right).astype(np.float32)
    middle = (columns - (x0 + x1) / 2) / max((x1 - x0) * _BLENDED, 1)
    share = np.clip(middle + 0.5, 0, 1)[None, :, None].astype(np.float32)
    return from_left * (1 - share) + from_right * share


def _wave(distance: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """0, 1, ..., length - 1, length - 1, ..., 1, 0, 0, 1, ...: a strip mirrored as often as needed."""
    phase = np.maximum(distance, 0) % max(2 * length, 1)
    return np.clip(np.minimum(phase, 2 * length - 1 - phase), 0, max(length - 1, 0))


def source_split(root: Path, split: str) -> str:
    """CCP's split that a split of scenes is made of: train of train.txt, val and test of val.txt.

    Raises:
        QanetError: a list is missing, or a photograph is in both.
    """
    lists = {}
    for name in ("train", "val"):
        path = root / f"{name}.txt"
        if not path.is_file():
            raise QanetError(
                f"no {path.name} in {root}",
                expected="train.txt and val.txt, without a photograph in both",
                got="missing",
            )
        lists[name] = set(path.read_text().split())
    both = sorted(lists["train"] & lists["val"])
    if both:
        raise QanetError(f"{len(both)} people are in train.txt and in val.txt", expected="none", got=both[:4])
    return "train" if split == "train" else "val"


def _disc(diameter: int) -> NDArray[np.uint8]:
    import cv2

    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (diameter, diameter)), np.uint8)
