"""Folders of photographs and label PNGs with one person each: CCP's and CelebAMask's layouts.

Layout: <root>/photos/*.jpg (or images/) and <root>/labels/*.png with equal stems; <root>/<split>.txt lists the stems
of a split. A folder without split files is taken whole. A label map without a person is background all over, and the
box is the whole photograph.
"""

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qanet.datasets.decoding import decode_ids, decode_photo, require_size, translate_ids
from qanet.datasets.records import AnnotatedImage, DataSet, Sample, person_box
from qanet.errors import QanetError, QanetWarning
from qanet.labels import LabelSet
from qanet.metrics.records import Truth
from qanet.picture_files import pictures_of

_PHOTO_FOLDERS = ("photos", "images")


class PhotoFolder(DataSet):
    """Photographs with one annotated person each; indexable, decodes on access.

    >>> from qanet.labels import label_set
    >>> data = PhotoFolder("CCP", label_set("ccp13"), split="val")
    >>> data.names, data[0].box.tolist()
    (['0002'], [8.0, 8.0, 24.0, 40.0])
    """

    single_person = True

    def __init__(self, root: str | Path, labels: LabelSet, split: str | None = None, lenient: bool = False):
        """Open a split; with `lenient`, missing files are found when they are read (`qanet check`)."""
        self.root = Path(root)
        self.label_set = labels
        self._photos = photos_of(self.root)
        names = split_names(self.root, split, self._photos)
        missing = [n for n in names if n not in self._photos or not self.label_path(n).exists()]
        if missing and not lenient:
            raise QanetError(
                f"{len(missing)} of {len(names)} names have no photograph or no label, the first is {missing[0]}",
                expected=f"photos/{missing[0]}.jpg and labels/{missing[0]}.png",
                got="missing",
            )
        self.names = self.image_names = names
        self.image_ids = list(names)

    def photo_path(self, name: str) -> Path:
        """The photograph's file."""
        return self._photos.get(name, self.root / _PHOTO_FOLDERS[0] / f"{name}.jpg")

    def label_path(self, name: str) -> Path:
        """The label map's file."""
        return self.root / "labels" / f"{name}.png"

    def raw_labels(self, index: int) -> NDArray[np.uint8]:
        """The label file as it is, (H, W) uint8."""
        return decode_ids(self.label_path(self.names[index])).astype(np.uint8, copy=False)

    def labels(self, index: int, image_hw: tuple[int, ...] | None = None) -> NDArray[np.uint8]:
        """Class ids (H, W) uint8 with IGNORE, of the photograph's size where that is given."""
        return self.translated(index, self.raw_labels(index), image_hw)

    def translated(
        self, index: int, raw: NDArray[np.uint8], image_hw: tuple[int, ...] | None = None
    ) -> NDArray[np.uint8]:
        """`labels` of a label file that was decoded already."""
        path = self.label_path(self.names[index])
        if image_hw is not None:
            require_size(f"{self.names[index]}: photograph and label", image_hw, raw.shape)
        return translate_ids(raw, self.label_set.lookup, self.label_set.known, path)

    def __getitem__(self, index: int) -> Sample:
        name = self.names[index]
        labels = self.labels(index)
        image = decode_photo(self.photo_path(name), labels.shape)
        require_size(f"{name}: photograph and label", image.shape[:2], labels.shape)
        return Sample(name, image, labels, person_box(labels))

    def image(self, index: int) -> AnnotatedImage:
        """The photograph as an image with one person: wherever a label or void is."""
        sample = self[index]
        truth = Truth(sample.labels, (sample.labels != 0).astype(np.uint8))
        return AnnotatedImage(sample.name, sample.name, sample.image, truth, sample.box[None], np.ones(1, np.float32))

    def class_pixels(self, index: int) -> NDArray[np.int64]:
        """(1, C) pixels of each class."""
        counts = np.bincount(self.labels(index).ravel(), minlength=256)
        return counts[None, : self.label_set.num_classes]


def photos_of(root: Path) -> dict[str, Path]:
    """Stem -> photograph; QanetError where the folder has another layout."""
    folder = next((root / name for name in _PHOTO_FOLDERS if (root / name).is_dir()), None)
    if folder is None or not (root / "labels").is_dir():
        raise QanetError(
            f"no data set at {root}",
            expected="a folder with photos/ and labels/",
            got="neither" if not root.is_dir() else sorted(p.name for p in root.iterdir())[:8],
            next_command="give the folder of the data set, or the --format that it has",
        )
    photos: dict[str, Path] = {}
    for path in pictures_of(folder)[0]:
        if (other := photos.setdefault(path.stem, path)) != path:
            got = f"{other.name} and {path.name}"
            raise QanetError(f"two photographs of one name in {folder}", expected="one", got=got)
    return photos


def split_names(root: Path, split: str | None, photos: dict[str, Path]) -> list[str]:
    """The stems of a split in the order of its file, all photographs where the folder has no split files.

    A line is a stem or a photograph's file name, blanks inside it included. A name that comes again is left out with a
    QanetWarning: it would count twice.

    Raises:
        QanetError: no such split, or an empty one.
    """
    split_file = root / f"{split}.txt"
    if split is not None and split_file.exists():
        names = _listed(split_file, photos)
    elif split is not None and (root / "train.txt").exists():
        raise QanetError(f"no split {split!r} in {root}", expected=f"a file {split_file.name}", got="none")
    else:
        names = sorted(photos)
    if not names:
        raise QanetError(f"the split is empty: {root}", expected="at least one photograph", got=0)
    return names


def _listed(file: Path, photos: dict[str, Path]) -> list[str]:
    """The stems in a split file, each once."""
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise QanetError(f"{file} cannot be read", expected="UTF-8 text, a name per line", got=error) from error
    by_file = {path.name: stem for stem, path in photos.items()}
    names: list[str] = []
    for line in filter(None, lines):
        several = line not in photos and line not in by_file and all(word in photos for word in line.split())
        names += [by_file.get(name, name) for name in (line.split() if several else [line])]
    once = list(dict.fromkeys(names))
    if len(once) < len(names):
        warnings.warn(
            f"{file} names {len(names) - len(once)} photographs again; each counts once", QanetWarning, stacklevel=4
        )
    return once
