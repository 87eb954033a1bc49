"""Data sets of parsed people: one interface for the official layouts, CCP's and CelebAMask's.

    from qanet.datasets import open_dataset
    data = open_dataset("CIHP", "cihp", split="train")
    data[0]                                        # a person: Sample(name, image, labels, box)
    for scene in data.images(): ...                # an image: its pixels, its exact truth, its boxes

A folder of `qanet new` (format "folder") is like CCP's, with a file of its own classes, `labels.json`. Nothing is
decoded before it is asked for.
"""

import dataclasses
from pathlib import Path

from qanet.datasets.annotations import DetectedBoxes, read_detections
from qanet.datasets.official import LAYOUTS, OTHER_PEOPLE, OfficialFolder
from qanet.datasets.photo_folder import PhotoFolder
from qanet.datasets.records import AnnotatedImage, DataSet, Sample, person_box
from qanet.errors import QanetError
from qanet.labels import LabelSet, label_set, read_label_set

__all__ = [
    "DATA_FORMATS",
    "AnnotatedImage",
    "DataSet",
    "DetectedBoxes",
    "OfficialFolder",
    "PhotoFolder",
    "Sample",
    "default_split",
    "format_of",
    "label_file",
    "layout_of",
    "open_dataset",
    "own_labels",
    "person_box",
    "read_detections",
    "splits_of",
]

PHOTO_FORMATS = {"ccp": "ccp13", "celebamask": "celebamask19", "folder": "labels.json"}  # format -> label set
_LABEL_FILES = ("labels.json", "labels.yaml", "labels.yml")
DATA_FORMATS = (*PHOTO_FORMATS, *LAYOUTS)


def open_dataset(
    root: str | Path,
    format: str,
    labels: LabelSet | str | None = None,
    split: str | None = None,
    *,
    other_people: str = "background",
    lenient: bool = False,
) -> DataSet:
    """Open a data set of any format; nothing is decoded yet.

    Args:
        root: its folder.
        format: one of DATA_FORMATS. `ppp` and `ppp-arms-first` differ in the class order of the files.
        labels: the classes wanted, or their name or file; None: the format's own (ccp: 13 classes), or the folder's.
            ccp: 59 raw ids, grouped by the label set. Official layouts: the files hold the set's own ids; where the
            format's own set has the same classes in another order, they are brought into the order of `labels`.
        split: "train", "val" or "test" (ppp: val means test), for ccp and celebamask any NAME.txt; None: see
            `default_split`.
        other_people: in a person's labels, the pixels of other people are "background" (as published) or "ignore".
        lenient: open a broken set as well, to report what is broken.
    Raises:
        QanetError: an unknown name, no such data set or split, an empty split, broken annotations, missing files.

    >>> data = open_dataset("CCP", "ccp", split="val")
    >>> len(data), data[0].name, data[0].labels.shape
    (1, '0002', (48, 32))
    >>> [scene.boxes.tolist() for scene in data.images()]
    [[[8.0, 8.0, 24.0, 40.0]]]
    """
    _known(format)
    if labels is None:
        chosen = own_labels(format, root)
    else:
        chosen = labels if isinstance(labels, LabelSet) else label_set(labels)
        chosen = _translated(own_labels(format, root), chosen, root) if format == "folder" else chosen
    if other_people not in OTHER_PEOPLE:
        raise QanetError("bad other_people", expected=" or ".join(OTHER_PEOPLE), got=repr(other_people))
    if format in PHOTO_FORMATS:
        return PhotoFolder(root, chosen, split or default_split(root, format), lenient)
    return OfficialFolder(root, LAYOUTS[format], chosen, split, other_people, lenient)


def splits_of(root: str | Path, format: str) -> tuple[str, ...]:
    """The splits that a data set has; "val" is among them where ppp has a test split.

    Raises:
        QanetError: an unknown format, or no data set of an official layout at that place.

    >>> splits_of("CCP", "ccp")
    ('train', 'val')
    """
    if _known(format) in PHOTO_FORMATS:
        listed = sorted(p.stem for p in Path(root).glob("*.txt") if p.stem != "classes")
        return tuple(listed)
    layout = LAYOUTS[format]
    found = layout.splits(Path(root))
    return found + tuple(alias for alias, meant in layout.aliases.items() if meant in found and alias not in found)


def default_split(root: str | Path, format: str) -> str | None:
    """The split to evaluate on: "val"; None, the whole folder, for ccp and celebamask without a val.txt.

    >>> default_split("CCP", "ccp")
    'val'
    """
    if _known(format) in PHOTO_FORMATS:
        return "val" if (Path(root) / "val.txt").exists() else None
    return "val"


def _known(format: str) -> str:
    if format not in DATA_FORMATS:
        raise QanetError(f"unknown data format {format!r}", expected=f"one of {', '.join(DATA_FORMATS)}", got=format)
    return format


def own_labels(format: str, root: str | Path = ".") -> LabelSet:
    """The label set of a format where none is asked for; that of a folder of `qanet new` lies in it.

    Raises:
        QanetError: an unknown format, or a folder without a label set.

    >>> own_labels("cihp").name
    'cihp20'
    """
    if _known(format) == "folder":
        file = label_file(root)
        if file is None:
            raise QanetError(
                f"{root} has no label set",
                expected=" or ".join(_LABEL_FILES),
                got="none",
                next_command=f"qanet new NAME --classes background,A,B --data {root}",
            )
        return read_label_set(file)
    return label_set(PHOTO_FORMATS[format] if format in PHOTO_FORMATS else LAYOUTS[format].labels)


def label_file(root: str | Path) -> Path | None:
    """The label set in a folder of data; None where there is none.

    >>> label_file("CCP") is None
    True
    """
    return next((path for name in _LABEL_FILES if (path := Path(root) / name).is_file()), None)


def format_of(root: str | Path) -> str | None:
    """A data set's format by what lies in its folder; None where it is no data set.

    The official layouts have the data set's name in the annotation file's. ppp-arms-first looks like ppp.

    >>> format_of("CCP")
    'ccp'
    """
    root = Path(root)
    if (root / "labels").is_dir():
        if label_file(root) is not None:
            return "folder"
        return "ccp" if (root / "photos").is_dir() else "celebamask" if (root / "images").is_dir() else None
    return next((name for name, layout in LAYOUTS.items() if layout.is_at(root)), None)


def layout_of(root: str | Path, format: str | None = None) -> str:
    """The format that was given, or that of the folder by what lies in it; ccp in doubt.

    >>> layout_of("CCP"), layout_of("CCP", "celebamask")
    ('ccp', 'celebamask')
    """
    return _known(format or format_of(root) or "ccp")


def _translated(own: LabelSet, wanted: LabelSet, root: str | Path) -> LabelSet:
    """The wanted classes for label files with the ids of `own`: the same classes, whatever their order."""
    if own.classes == wanted.classes:
        return dataclasses.replace(wanted, source_map=own.source_map, void=own.void)
    if sorted(own.classes) != sorted(wanted.classes):
        raise QanetError(
            f"{root} has other classes than {wanted.name}",
            expected=", ".join(wanted.classes),
            got=", ".join(own.classes),
            next_command="take a model or a recipe of these classes, or make another folder with qanet new",
        )
    order = tuple(wanted.classes.index(name) for name in own.classes)
    source = tuple(order[i] if i < len(order) else i for i in own.source_map or range(own.num_classes))
    return dataclasses.replace(wanted, source_map=source, void=own.void)
