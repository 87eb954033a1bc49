"""People of many photographs with one label map each: what silhouettes and teachers write, and training reads.

Layout: <root>/people.json, <root>/labels/NAME.png. A label map is of its whole photograph, with the label set's own
ids, partial ids (`qanet.train.data.people`) and 255 for void. Photographs stay where they are.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qanet.datasets import AnnotatedImage, DataSet, Sample
from qanet.datasets.decoding import decode_ids, decode_photo, require_size
from qanet.errors import QanetError
from qanet.files import write_text
from qanet.labels import IGNORE, LabelSet
from qanet.metrics.records import Truth

INDEX = "people.json"


@dataclass(frozen=True)
class Person:
    """One person: the photograph's file, and box_xyxy in its pixels."""

    name: str
    photo: str
    box_xyxy: tuple[float, float, float, float]


def write_index(root: Path, people: list[Person]) -> None:
    """Write people.json."""
    write_text(root / INDEX, json.dumps({"people": [asdict(person) for person in people]}))


def read_index(root: Path) -> list[Person]:
    """The people of a folder.

    Raises:
        QanetError: no index there, or a broken one.
    """
    path = root / INDEX
    try:
        rows = json.loads(path.read_text())["people"]
        return [Person(r["name"], r["photo"], tuple(r["box_xyxy"])) for r in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise QanetError(
            f"no index of people at {path}",
            got=repr(error),
            next_command="python -m qanet.benchmarks.lab.silhouettes --help",
        ) from error


class PeopleFolder(DataSet):
    """The people of one folder; indexable, decodes on access."""

    single_person = True

    def __init__(self, root: Path, labels: LabelSet):
        self.root, self.label_set = root, labels
        self.people = read_index(root)
        if not self.people:
            raise QanetError(f"nobody in {root / INDEX}", expected="at least one person", got=0)
        self.names = self.image_names = [person.name for person in self.people]
        self.image_ids = list(self.names)

    def labels(self, index: int) -> NDArray[np.uint8]:
        """(H, W) uint8 of the whole photograph: classes, partial ids, IGNORE."""
        return decode_ids(self.root / "labels" / f"{self.names[index]}.png").astype(np.uint8, copy=False)

    def __getitem__(self, index: int) -> Sample:
        person = self.people[index]
        image = decode_photo(Path(person.photo))
        labels = self.labels(index)
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
