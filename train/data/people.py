"""People with partial labels: the ids, folders of such people, and their mixture with an annotated data set.

A partial label is an id that stands for several candidate classes: a suit is a jacket or trousers, a dress cut at the
waist may be a top, a silhouette is any class but background. The network is trained on the sum of the probabilities of
the candidates. Source: learning from candidate labels, Cour, Sapp and Taskar, JMLR 12 (2011). The ids lie above every
class and below void. Only folders of people hold them in files:

    <root>/people.json        the people: name, photograph, box
    <root>/labels/NAME.png    the label map of the whole photograph: classes, partial ids and 255 for void

Photographs stay where they are.
"""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qanet.datasets import AnnotatedImage, DataSet, PhotoFolder, Sample
from qanet.datasets.decoding import decode_ids, decode_photo, require_size
from qanet.errors import QanetError
from qanet.files import write_text
from qanet.labels import CCP13, CCP59, IGNORE, LabelSet
from qanet.metrics.records import Truth

ANY_CLASS = 254  # a person of unknown class: any class but background
TOP = 253  # a dress whose skirt is out of view
BOTTOM = 252  # a dress whose top is out of view
SUIT = 251  # a garment of two parts in one mask
LEGWEAR = 250  # tights and stockings, whose border with the skin the masks seldom show
FIRST = 250  # ids from FIRST to ANY_CLASS are partial
INDEX = "people.json"

_CANDIDATES = {  # in label sets that have all of them
    TOP: ("upper-clothes", "dress"),
    BOTTOM: ("skirt", "dress"),
    SUIT: ("upper-clothes", "pants"),
    LEGWEAR: ("skin", "pants"),
}
_SUITS = ("bodysuit", "jumper", "romper", "suit")
_LEGWEAR = ("socks", "stockings", "tights")


def partial_sets(labels: LabelSet) -> dict[int, tuple[int, ...]]:
    """Partial id -> its candidate classes in this label set."""
    sets = {ANY_CLASS: tuple(range(1, labels.num_classes))}
    for partial, names in _CANDIDATES.items():
        if set(names) <= set(labels.classes):
            sets[partial] = tuple(labels.classes.index(name) for name in names)
    return sets


def fashion_lookup(labels: LabelSet) -> NDArray[np.uint8]:
    """(256,) raw id of Clothing Co-Parsing -> class or partial id, in place of void."""
    table = labels.lookup.copy()
    known = partial_sets(labels)
    for raw, name in enumerate(CCP59.classes):
        if table[raw] == IGNORE:
            wanted = SUIT if name in _SUITS else LEGWEAR if name in _LEGWEAR else ANY_CLASS
            table[raw] = wanted if wanted in known else ANY_CLASS
    return table


@dataclass(frozen=True)
class Person:
    """A person of a folder: name, file of the photograph, box_xyxy in its pixels."""

    name: str
    photo: str
    box_xyxy: tuple[float, float, float, float]


def write_index(root: Path, people: list[Person]) -> None:
    """Write people.json."""
    write_text(root / INDEX, json.dumps({"people": [asdict(person) for person in people]}))


def read_index(root: Path) -> list[Person]:
    """The people of a folder.

    Raises:
        QanetError: a missing or broken index.
    """
    path = root / INDEX
    try:
        rows = json.loads(path.read_text())["people"]
        return [Person(r["name"], r["photo"], tuple(r["box_xyxy"])) for r in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise QanetError(
            f"no index of people at {path}",
            got=repr(error),
            next_command="see docs/training.md, Photographs of real people",
        ) from error


class PeopleFolder(DataSet):
    """The people of one folder, decoded on access."""

    single_person = True

    def __init__(self, root: Path, labels: LabelSet):
        self.root, self.label_set = root, labels
        self.people = read_index(root)
        if not self.people:
            raise QanetError(f"no people in {root / INDEX}", expected="at least one person", got=0)
        self.names = self.image_names = [person.name for person in self.people]
        self.image_ids = list(self.names)

    def labels(self, index: int) -> NDArray[np.uint8]:
        """(H, W) uint8 labels of the whole photograph: classes, partial ids, IGNORE."""
        return decode_ids(self.root / "labels" / f"{self.names[index]}.png").astype(np.uint8, copy=False)

    def __getitem__(self, index: int) -> Sample:
        person = self.people[index]
        labels = self.labels(index)
        image = decode_photo(Path(person.photo), labels.shape)
        require_size(f"{person.name}: photograph and label", image.shape[:2], labels.shape)
        return Sample(person.name, image, labels, np.array(person.box_xyxy, np.float32))

    def image(self, index: int) -> AnnotatedImage:
        """The photograph with this person alone; partial ids are void."""
        sample = self[index]
        known = np.where(sample.labels < self.label_set.num_classes, sample.labels, IGNORE).astype(np.uint8)
        truth = Truth(known, (known != 0).astype(np.uint8))
        return AnnotatedImage(sample.name, sample.name, sample.image, truth, sample.box[None], np.ones(1, np.float32))

    def class_pixels(self, index: int) -> NDArray[np.int64]:
        """(1, C) pixels of each class."""
        counts = np.bincount(self.labels(index).ravel(), minlength=256)
        return counts[None, : self.label_set.num_classes]


class Mixture(DataSet):
    """The people of an annotated data set, then those of folders."""

    single_person = True

    def __init__(self, annotated: DataSet, folders: Sequence[PeopleFolder], shares: Sequence[float]):
        """
        Args:
            annotated: the data set with complete labels.
            shares: of each folder, the share of the people drawn.
        Raises:
            QanetError: shares that leave nothing for the annotated set.
        """
        if len(shares) != len(folders) or min(shares, default=1.0) <= 0 or sum(shares) >= 1:
            raise QanetError("bad shares of people", expected="above 0, below 1 in all", got=list(shares))
        self.annotated, self.label_set = annotated, annotated.label_set
        self.shares = (1 - sum(shares), *shares)
        self.parts: tuple[DataSet, ...] = (annotated, *folders)
        self._ends = np.cumsum([len(part) for part in self.parts])
        self.names = self.image_names = [name for part in self.parts for name in part.names]
        self.image_ids = list(self.names)
        grouped = isinstance(annotated, PhotoFolder) and self.label_set == CCP13
        self._lookup = fashion_lookup(self.label_set) if grouped else None

    def part_of(self, index: int) -> tuple[int, int]:
        """The number of the part that an index lies in, and its index there."""
        part = int(np.searchsorted(self._ends, index, side="right"))
        return part, index - (int(self._ends[part - 1]) if part else 0)

    def outlined(self, index: int) -> bool:
        """Whether the person's outline is exact enough to replace the background."""
        return index < self._ends[0]

    def __getitem__(self, index: int) -> Sample:
        part, inner = self.part_of(index)
        sample = self.parts[part][inner]
        if part == 0 and self._lookup is not None:
            assert isinstance(self.annotated, PhotoFolder)
            return dataclasses.replace(sample, labels=self._lookup[self.annotated.raw_labels(inner)])
        return sample

    def image(self, index: int) -> AnnotatedImage:
        """The photograph with this person alone."""
        part, inner = self.part_of(index)
        return self.parts[part].image(inner)

    def class_pixels(self, index: int) -> NDArray[np.int64]:
        """(1, C) pixels of each class."""
        part, inner = self.part_of(index)
        return self.parts[part].class_pixels(inner)
