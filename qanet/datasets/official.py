"""The official layout: where the published data sets keep their files.

    <DS>/{Training,Validation|Testing}/{Images,Category_ids,Human_ids,Instance_ids}
    <DS>/annotations/<DS>_{train,val|test}.json

Source: method, Layout; names as in soeaver/QANet's data set catalogue. Single-person sets need no Human_ids and
Instance_ids: the person is everything that is not background.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qanet.datasets.annotations import AnnotatedPerson, ImageRecord, read_annotations
from qanet.datasets.decoding import decode_ids, decode_photo, require_size, translate_ids
from qanet.datasets.records import AnnotatedImage, DataSet, Sample
from qanet.errors import QanetError
from qanet.labels import IGNORE, LabelSet, label_set
from qanet.metrics.records import Truth

IMAGES, CATEGORIES, HUMANS, PARTS = "Images", "Category_ids", "Human_ids", "Instance_ids"
_SPLITS = {"train": "Training", "val": "Validation", "test": "Testing"}
OTHER_PEOPLE = ("background", "ignore")


@dataclass(frozen=True)
class Layout:
    """One data set's names."""

    format: str  # as users name it
    folder: str  # <DS>
    labels: str  # the label set of its own
    aliases: dict[str, str] = field(default_factory=dict)  # split -> the split that is meant

    def split(self, name: str | None) -> str:
        """The split of that name, `val` for None; QanetError for an unknown one."""
        chosen = self.aliases.get(name or "val", name or "val")
        if chosen not in _SPLITS:
            raise QanetError(f"no split {name!r} in the layout of {self.folder}", expected=", ".join(_SPLITS), got=name)
        return chosen

    def split_folder(self, root: Path, split: str) -> Path:
        """<DS>/Training and so on."""
        return root / _SPLITS[split]

    def json_path(self, root: Path, split: str) -> Path:
        """The split's annotation file. Other data sets have other names there, so a file of another name is refused."""
        return root / "annotations" / f"{self.folder}_{split}.json"

    def find_root(self, root: Path) -> Path:
        """The folder that holds annotations/: `root`, or <DS> in it."""
        for folder in (root, root / self.folder):
            if (folder / "annotations").is_dir():
                return folder
        raise QanetError(
            f"no data set at {root}",
            expected=f"annotations/ and {', '.join(_SPLITS.values())}, as in {self.folder}",
            got="no such folder" if not root.is_dir() else sorted(p.name for p in root.iterdir())[:8],
            next_command="give the folder of the data set, or the --format that it has",
        )

    def is_at(self, root: Path) -> bool:
        """Whether `root`, or <DS> in it, holds annotation files of this data set's name."""
        return any(any((f / "annotations").glob(f"{self.folder}_*.json")) for f in (root, root / self.folder))

    def splits(self, root: Path) -> tuple[str, ...]:
        """The splits that are there."""
        found = self.find_root(root)
        return tuple(s for s in _SPLITS if self.split_folder(found, s).is_dir() and self.json_path(found, s).exists())


LAYOUTS = {
    layout.format: layout
    for layout in (
        Layout("cihp", "CIHP", "cihp20"),
        Layout("lip", "LIP", "lip20"),
        Layout("atr", "ATR", "atr18"),
        Layout("mhp", "MHP-v2", "mhp59"),
        # Two orders of the six parts are in use: `ppp`, the default, is head, torso, upper-arms, ...; the files of the
        # other begin with lower-arms. The set is trained on Training and tested on Testing; it has no other split.
        Layout("ppp", "PASCAL-Person-Part", "ppp7", {"val": "test"}),
        Layout("ppp-arms-first", "PASCAL-Person-Part", "ppp7-arms-first", {"val": "test"}),
    )
}


class OfficialFolder(DataSet):
    """One split of a data set in the official layout; indexable by annotated person, decodes on access."""

    def __init__(
        self,
        root: str | Path,
        layout: Layout,
        labels: LabelSet,
        split: str | None = None,
        other_people: str = "background",
        lenient: bool = False,
    ):
        """Open a split; with `lenient`, mistakes are kept in `problems` and not raised (`qanet check`)."""
        self.root, self.layout, self.label_set = layout.find_root(Path(root)), layout, labels
        self.split = layout.split(split)
        self.folder = layout.split_folder(self.root, self.split)
        self.other_people = other_people
        self._lookup = id_table(layout, labels)
        json_path = layout.json_path(self.root, self.split)
        self.records, self.problems = read_annotations(json_path)
        if not lenient:
            self._require_whole(self.problems + missing_files(self.folder, self.records))
        self._people = [(image, person) for image, r in enumerate(self.records) for person in range(len(r.people))]
        if not self._people and not lenient:
            raise QanetError(f"the split is empty: {json_path}", expected="at least one annotated person", got=0)
        self.names = [f"{self.records[i].stem}#{self.records[i].people[p].parsing_id}" for i, p in self._people]
        self.image_names = [record.stem for record in self.records]
        self.image_ids = [record.image_id for record in self.records]

    def _require_whole(self, problems: list[QanetError]) -> None:
        """Raise the first mistake and the number of the others."""
        if problems:
            first, more = problems[0], f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            raise QanetError(
                f"{first.fact}{more}",
                expected=first.expected,
                got=first.got,
                next_command=f"qanet check {self.root} --format {self.layout.format} --split {self.split}",
            )

    def maps(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Class ids with IGNORE and human ids, both (H, W) uint8, of the image of that index."""
        record = self.records[index]
        path = map_path(self.folder, CATEGORIES, record)
        labels = translate_ids(decode_ids(path), self._lookup, self.label_set.known, path)
        if (self.folder / HUMANS).is_dir():
            human_path = map_path(self.folder, HUMANS, record)
            human = decode_ids(human_path).astype(np.uint8, copy=False)
            require_size(f"{human_path} and its Category_ids", labels.shape, human.shape)
            if all(person.parsing_id != IGNORE for person in record.people):
                human = np.where((human == IGNORE) & (labels == IGNORE), np.uint8(0), human)  # void, not a person
        elif len(record.people) > 1:
            raise QanetError(
                f"{record.file_name} has {len(record.people)} people and no map of their pixels",
                expected=f"a folder {self.folder / HUMANS}, or one person per image",
                got="no such folder",
            )
        else:
            only = record.people[0].parsing_id if record.people else 0
            human = np.where(labels != 0, only, 0).astype(np.uint8)
        return labels, human

    def parts(self, index: int) -> tuple[NDArray[np.integer], NDArray[np.int64]] | tuple[None, None]:
        """Part ids (H, W) and the table (L, 3) part id, class, human id; None and None without Instance_ids."""
        if not (self.folder / PARTS).is_dir():
            return None, None
        path = map_path(self.folder, PARTS, self.records[index])
        table = read_part_table(path.with_suffix(".txt"))
        known = table[:, 1] < self.label_set.num_classes
        if not known.all() or table.min(initial=0) < 0:
            raise QanetError(
                f"{path.with_suffix('.txt')} holds ids outside the set",
                expected=f"classes 0..{self.label_set.num_classes - 1}",
                got=table[:, 1].tolist()[:16],
            )
        table[:, 1] = self._lookup[table[:, 1]]
        return decode_ids(path, deep=True), table

    def person_pixels(self, image: int, person: AnnotatedPerson, human: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """(H, W) a person's own pixels; QanetError where there are none."""
        own = human == person.parsing_id
        if not own.any():
            raise QanetError(
                f"{self.records[image].file_name}: person {person.parsing_id} has no pixels",
                expected=f"pixels of value {person.parsing_id} in {HUMANS}",
                got=f"{sorted(set(np.unique(human).tolist()) - {0})[:16]}",
                next_command="take the annotation out of the JSON file",
            )
        return own

    def __getitem__(self, index: int) -> Sample:
        image_index, number = self._people[index]
        record = self.records[image_index]
        person = record.people[number]
        labels, human = self.maps(image_index)
        image = decode_photo(self.folder / IMAGES / record.file_name, labels.shape)
        require_size(f"{record.file_name}: image and labels", image.shape[:2], labels.shape)
        own = self.person_pixels(image_index, person, human)
        if self.other_people == "ignore":
            labels = np.where(own | (human == 0), labels, np.uint8(IGNORE))
        else:
            labels = np.where(own, labels, np.uint8(0))
        return Sample(self.names[index], image, labels, clipped(person.box, labels.shape, record.file_name))

    def image(self, index: int) -> AnnotatedImage:
        """An image with all its people; see `DataSet.image`."""
        record = self.records[index]
        labels, human = self.maps(index)
        parts, table = self.parts(index)
        pixels = decode_photo(self.folder / IMAGES / record.file_name, labels.shape)
        require_size(f"{record.file_name}: image and labels", pixels.shape[:2], labels.shape)
        if parts is not None:
            require_size(f"{record.file_name}: image and Instance_ids", pixels.shape[:2], parts.shape)
        for person in record.people:
            self.person_pixels(index, person, human)
        boxes = [clipped(person.box, labels.shape, record.file_name) for person in record.people]
        stacked = np.array(boxes, np.float32).reshape(-1, 4)
        truth = Truth(labels, human, parts, table)
        return AnnotatedImage(record.stem, record.image_id, pixels, truth, stacked, np.ones(len(boxes), np.float32))

    def class_pixels(self, index: int) -> NDArray[np.int64]:
        """(P, C) pixels of each class for the people of the image of that index."""
        labels, human = self.maps(index)
        people = self.records[index].people
        joint = np.bincount((human.astype(np.int32) * 256 + labels).ravel(), minlength=1 << 16).reshape(256, 256)
        ids = [person.parsing_id for person in people]
        return joint[ids, : self.label_set.num_classes].reshape(len(ids), -1)


def id_table(layout: Layout, labels: LabelSet) -> NDArray[np.uint8]:
    """(256,) uint8: id in the files -> class id: the same, or by name where only the order differs."""
    own = label_set(layout.labels)
    table = np.full(256, IGNORE, np.uint8)
    table[: labels.num_classes] = np.arange(labels.num_classes)
    if sorted(own.classes) == sorted(labels.classes):
        table[: own.num_classes] = [labels.classes.index(name) for name in own.classes]
    return table


def map_path(folder: Path, kind: str, record: ImageRecord) -> Path:
    """The PNG of a label map of an image."""
    return folder / kind / f"{record.stem}.png"


def missing_files(folder: Path, records: Sequence[ImageRecord]) -> list[QanetError]:
    """An error for every file that the annotations name or need and that is not there."""
    problems = []
    if not (folder / CATEGORIES).is_dir():
        return [QanetError(f"{folder} has no ground truth", expected=f"a folder {CATEGORIES}", got="none")]
    kinds = [kind for kind in (CATEGORIES, HUMANS, PARTS) if (folder / kind).is_dir()]
    for record in records:
        wanted = [folder / IMAGES / record.file_name, *(map_path(folder, kind, record) for kind in kinds)]
        if PARTS in kinds:
            wanted.append(map_path(folder, PARTS, record).with_suffix(".txt"))
        problems += [
            QanetError(f"no file {path}", expected=f"the file of {record.file_name}", got="missing")
            for path in wanted
            if not path.is_file()
        ]
    return problems


def read_part_table(path: Path) -> NDArray[np.int64]:
    """(L, 3) int64 part id, class, human id from lines of three numbers; QanetError for anything else."""
    try:
        rows = [[int(word) for word in line.split()] for line in path.read_text().splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise QanetError(
            f"broken part table {path}", expected='lines "part_id class_id human_id"', got=error
        ) from error
    if any(len(row) != 3 for row in rows):
        got = next(row for row in rows if len(row) != 3)
        raise QanetError(f"broken part table {path}", expected='lines "part_id class_id human_id"', got=got)
    return np.array(rows, np.int64).reshape(-1, 3)


def clipped(box: NDArray[np.float32], hw: tuple[int, ...], name: str) -> NDArray[np.float32]:
    """A box cut at the image's border; QanetError where nothing of it is inside."""
    inside = np.clip(box, 0, np.array([hw[1], hw[0], hw[1], hw[0]], np.float32))
    if (inside[2:] <= inside[:2]).any():
        raise QanetError(
            f"{name}: a person's box lies outside the image",
            expected=f"within {hw[1]}x{hw[0]} pixels",
            got=box.tolist(),
        )
    return inside
