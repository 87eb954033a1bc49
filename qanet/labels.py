"""Label sets: class names, colours, left/right pairs, void ids, and the grouping of finer ids into classes.

A label set is a small file of JSON or YAML; those in `label_sets/` are built in, and a user's own are read in the same
way. Only `name` and `classes` are needed:

    {"name": "hats",
     "classes": ["background", "hair", "skin", "clothes", "left-shoe", "right-shoe"],
     "colours": ["#000000", "#8c0000", "#bef0e6", "#730073", "#008cff", "#ffbeff"],
     "flip_pairs": [["left-shoe", "right-shoe"]],
     "void": [200],
     "ids": ["background", "hair", "face", "arm", "shirt", "trousers", "left-shoe", "right-shoe"],
     "groups": {"skin": ["face", "arm"], "clothes": ["shirt", "trousers"]}}

`ids` names the ids of the label files where they are finer than the classes (or gives the name of a built-in set), and
`groups` says which of them a class holds; an id in no group whose name is no class is void. 255 is always void.

Sources of the built-in sets: the official data sets' class lists (CIHP, LIP, ATR, MHP-v2, Pascal-Person-Part), Clothing
Co-Parsing (arXiv 1502.00739), CelebAMask-HQ. `left` and `right` are the person's own. The two orders of ppp7 are both
in use. Of CCP's 59 labels, ccp13 leaves void what is ambiguous between two of its classes (a suit is jacket and
trousers in one mask; rompers and jumpers are top and bottom in one; hosiery is neither garment class nor bare skin) and
what is too small to learn (rings, watches).
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.errors import QanetError

IGNORE = 255  # void: no loss, no metric
MOST_CLASSES = 250  # ids from 250 to 254 are partial labels in training
_FILES = Path(__file__).parent / "label_sets"
_BUILT_IN = (
    *("ccp13", "ccp59", "cihp20", "lip20", "atr18", "mhp59", "ppp7", "ppp7-arms-first", "celebamask19"),
    *("person1", "personbox1"),
)
_KEYS = ("name", "classes", "colours", "flip_pairs", "void", "ids", "groups", "source_map")
_MOST_BYTES = 1 << 20

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
    void: tuple[int, ...] = field(default=(), repr=False)  # raw ids that are void beside 255
    colours: tuple[tuple[int, int, int], ...] = field(default=(), repr=False)  # RGB of each class; (): the palette's

    @property
    def num_classes(self) -> int:
        """Number of classes C, background included."""
        return len(self.classes)

    @property
    def num_raw(self) -> int:
        """Number of ids that a label PNG may hold, void apart."""
        return len(self.source_map) or self.num_classes

    @cached_property
    def colours_rgb(self) -> NDArray[np.uint8]:
        """(C, 3) uint8 RGB; colour-blind readers tell the first `SAFE_COLOURS` of the palette apart."""
        return np.array(self.colours, np.uint8) if self.colours else _colours(self.num_classes)

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
        table[list(self.void)] = IGNORE
        return table

    @cached_property
    def known(self) -> NDArray[np.bool_]:
        """(256,) bool: the ids that a label file may hold, void among them."""
        table = np.arange(256) < self.num_raw
        table[[*self.void, IGNORE]] = True
        return table

    def to_document(self) -> dict[str, Any]:
        """The set as plain data; `of_document` gives the same set back.

        >>> LabelSet.of_document(CCP13.to_document()) == CCP13
        True
        """
        document: dict[str, Any] = {"name": self.name, "classes": list(self.classes)}
        if self.colours:
            document["colours"] = [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in self.colours]
        if self.flip_pairs:
            document["flip_pairs"] = [[self.classes[left], self.classes[right]] for left, right in self.flip_pairs]
        for key in ("void", "source_map"):
            if getattr(self, key):
                document[key] = list(getattr(self, key))
        return document

    @classmethod
    def of_document(cls, document: Any, where: str = "the label set") -> "LabelSet":
        """The set of a document, as this file describes it.

        Args:
            where: its file, for errors.
        Raises:
            QanetError: the first thing that does not fit.

        >>> LabelSet.of_document({"name": "hats", "classes": ["background", "hat"]}).num_classes
        2
        """
        if not isinstance(document, Mapping):
            raise QanetError(f"{where} is no label set", expected="an object", got=type(document).__name__)
        if unknown := sorted(set(map(str, document)) - set(_KEYS)):
            raise QanetError(f"{where} has an unknown key", expected=f"of {', '.join(_KEYS)}", got=unknown[0])
        name, classes = document.get("name"), _names(document.get("classes"), f"{where}: classes")
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][\w.+-]{0,63}", name):
            raise QanetError(f"{where}: bad name", expected="letters, digits, . _ + -, up to 64", got=repr(name))
        if not 2 <= len(classes) <= MOST_CLASSES or classes[0] != "background":
            got = f"{len(classes)} classes, the first is {classes[0] if classes else None!r}"
            expected = f'"background" first, then 1 to {MOST_CLASSES - 1} more'
            raise QanetError(f"{where}: bad classes", expected=expected, got=got)
        pairs = tuple(_pair(pair, classes, where) for pair in _list(document.get("flip_pairs"), where, "flip_pairs"))
        if len({side for pair in pairs for side in pair}) < 2 * len(pairs):
            raise QanetError(f"{where}: a class is in two flip_pairs", expected="each class in one", got=pairs)
        colours = tuple(parse_colour(text) for text in _list(document.get("colours"), where, "colours"))
        if colours and len(colours) != len(classes):
            raise QanetError(
                f"{where}: bad colours", expected=f"one for each of {len(classes)} classes", got=len(colours)
            )
        void = _ids(document.get("void"), 256, where, "void")
        source = _ids(document.get("source_map"), (*range(len(classes)), IGNORE), where, "source_map")
        if "ids" in document or "groups" in document:
            source = _grouped(document, classes, where)
        return cls(name, classes, pairs, source, void, colours)


def parse_colour(text: Any) -> tuple[int, int, int]:
    """RGB of "#rrggbb".

    >>> parse_colour("#ff8000")
    (255, 128, 0)
    """
    if not isinstance(text, str) or not re.fullmatch(r"#[0-9a-fA-F]{6}", text):
        raise QanetError("bad colour", expected="#rrggbb, such as #ff8000", got=repr(text))
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)


def _list(value: Any, where: str, key: str) -> Sequence[Any]:
    if value is None:
        return ()
    if not isinstance(value, (list, tuple)):
        raise QanetError(f"{where}: bad {key}", expected="a list", got=repr(value)[:80])
    return value


def _names(value: Any, what: str) -> tuple[str, ...]:
    """Different names without commas, which separate them on a command line."""
    names = tuple(value) if isinstance(value, (list, tuple)) else ()
    wrong = [n for n in names if not isinstance(n, str) or not n.strip() or "," in n or not n.isprintable()]
    twice = [n for n in names if names.count(n) > 1]
    if wrong or twice or not names:
        got = repr(wrong[0]) if wrong else f"{twice[0]!r} twice" if twice else repr(value)[:80]
        raise QanetError(f"{what} do not fit", expected="different names without commas", got=got)
    return names


def _ids(value: Any, known: int | Sequence[int], where: str, key: str) -> tuple[int, ...]:
    allowed = range(known) if isinstance(known, int) else known
    numbers = tuple(_list(value, where, key))
    if wrong := [n for n in numbers if type(n) is not int or n not in allowed]:
        raise QanetError(f"{where}: bad {key}", expected=f"ids below {max(allowed) + 1}", got=repr(wrong[0]))
    if len(numbers) > 256:
        raise QanetError(f"{where}: bad {key}", expected="at most 256 ids", got=len(numbers))
    return numbers


def _pair(pair: Any, classes: tuple[str, ...], where: str) -> tuple[int, int]:
    if not isinstance(pair, (list, tuple)) or len(pair) != 2 or pair[0] == pair[1] or not set(pair) <= set(classes):
        raise QanetError(f"{where}: bad flip pair", expected="two different classes of the set", got=pair)
    return classes.index(pair[0]), classes.index(pair[1])


def _grouped(document: Mapping[str, Any], classes: tuple[str, ...], where: str) -> tuple[int, ...]:
    """Raw id -> class id or IGNORE, from `ids` and `groups`."""
    ids = document.get("ids")
    names = label_set(ids).classes if isinstance(ids, str) else _names(ids, f"{where}: ids")
    groups = document.get("groups", {})
    if not isinstance(groups, Mapping) or not set(groups) <= set(classes):
        got = sorted(set(groups) - set(classes))[:1] if isinstance(groups, Mapping) else groups
        raise QanetError(f"{where}: bad groups", expected="classes of the set, each with a list of ids", got=got)
    members = {name: number for number, name in enumerate(classes) if name not in groups}
    taken: set[str] = set()
    for name, group in groups.items():
        for member in _names(group, f"{where}: group {name}"):
            if member not in names or member in taken:
                expected = "names of ids, each in one group"
                raise QanetError(f"{where}: bad member of group {name}", expected=expected, got=member)
            taken.add(member)
            members[member] = classes.index(name)
    return tuple(members.get(name, IGNORE) for name in names)


def read_label_set(path: str | Path) -> LabelSet:
    """The label set of a JSON or YAML file.

    Raises:
        QanetError: no such file, not JSON or YAML, or the first thing in it that does not fit.

    >>> _ = Path("hats.json").write_text('{"name": "hats", "classes": ["background", "hat"]}')
    >>> read_label_set("hats.json")
    LabelSet(name='hats', classes=('background', 'hat'), flip_pairs=())
    """
    path = Path(path)
    try:
        text = path.read_bytes()[: _MOST_BYTES + 1].decode()
        document = _yaml(text) if path.suffix.lower() in (".yaml", ".yml") else json.loads(text)
    except QanetError:
        raise
    except Exception as error:  # of the file system, of JSON and of YAML, and of nesting too deep
        raise QanetError(f"label set {path} cannot be read", expected="JSON or YAML", got=error) from error
    labels = LabelSet.of_document(document, str(path))
    if labels.name in LABEL_SETS and labels != LABEL_SETS[labels.name]:
        raise QanetError(f"{path} has the name of a built-in label set", expected="another name", got=labels.name)
    return labels


def _yaml(text: str) -> Any:
    try:
        import yaml
    except ImportError as error:
        raise QanetError(
            "PyYAML is not installed", expected="a label set in JSON", next_command="pip install pyyaml"
        ) from error
    return yaml.safe_load(text)


def label_set(name: str | Path) -> LabelSet:
    """The built-in label set of that name, or that of a .json or .yaml file.

    Raises:
        QanetError: an unknown name, or a file that cannot be read.

    >>> label_set("ppp7").classes[1:4]
    ('head', 'torso', 'upper-arms')
    """
    if str(name) in LABEL_SETS:
        return LABEL_SETS[str(name)]
    if Path(name).suffix.lower() in (".json", ".yaml", ".yml"):
        return read_label_set(name)
    expected = f"one of {', '.join(LABEL_SETS)}"
    raise QanetError(
        f"unknown label set {str(name)!r}", expected=expected, got=name, next_command="give a FILE.json for your own"
    )


LABEL_SETS: dict[str, LabelSet] = {}
for _name in sorted(_BUILT_IN, key="ccp13".__eq__):  # ccp13 last: its ids are those of ccp59
    LABEL_SETS[_name] = LabelSet.of_document(json.loads((_FILES / f"{_name}.json").read_text()), _name)
LABEL_SETS = {name: LABEL_SETS[name] for name in _BUILT_IN}
CCP13, CCP59, CIHP20, LIP20, ATR18 = (LABEL_SETS[name] for name in ("ccp13", "ccp59", "cihp20", "lip20", "atr18"))
MHP59, PPP7, PPP7_ARMS_FIRST = (LABEL_SETS[name] for name in ("mhp59", "ppp7", "ppp7-arms-first"))
CELEBAMASK19 = LABEL_SETS["celebamask19"]
PERSON1 = LABEL_SETS["person1"]  # instance masks: one logit, the sigmoid is the person
PERSON_BOX1 = LABEL_SETS["personbox1"]  # detection: boxes and scores, no pixels
