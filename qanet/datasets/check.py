"""Check a data set: every file is decoded, every id looked up, every box compared with its pixels.

Training and evaluation stop at a problem; a remark stops nothing and is worth knowing. `doubts` judges the whole set:
label maps that name one class, ids of another label set, classes that never occur, masks that lie on no edges of their
photographs.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.datasets import open_dataset
from qanet.datasets.decoding import decode_photo
from qanet.datasets.official import IMAGES, OfficialFolder, clipped
from qanet.datasets.photo_folder import PhotoFolder
from qanet.datasets.records import DataSet, person_box
from qanet.errors import QanetError
from qanet.labels import IGNORE, LABEL_SETS, LabelSet

_DECODERS = 4
_BOX_SLACK = 0.05  # of the box's side, and 2 pixels: boxes with inclusive corners and rounded ones are no mistake
_BOX_SLACK_PX = 2.0
_LOOKED_AT = 200  # label maps that `doubts_of_labels` decodes
_OUTLINES = 64  # photographs whose edges are compared with their masks
_FEWEST_OUTLINES = 10
_OUTLINE_PX = 128  # longer side
_LEAST_WINS = 0.65  # share of photographs whose own mask fits better than another's: 0.95 in CCP, 0.5 by chance
_SHOWN = 12  # classes that are named
_FEWEST_MAPS = 8  # label maps from which a pattern of ids means something


@dataclass
class Findings:
    """The counts, problems and remarks of one image or of a whole split."""

    classes: int
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    images: int = 0
    people: int = 0
    void_pixels: int = 0
    pixels: NDArray[np.int64] = field(init=False)  # (C,) of each class
    images_with: NDArray[np.int64] = field(init=False)  # (C,) that show each class
    raw: NDArray[np.int64] = field(init=False)  # (256,) label files with each id
    outlines: list[tuple[NDArray, NDArray]] = field(default_factory=list)  # ranks of edges and labels, both small

    def __post_init__(self) -> None:
        self.pixels, self.images_with = np.zeros(self.classes, np.int64), np.zeros(self.classes, np.int64)
        self.raw = np.zeros(256, np.int64)

    def count(self, labels: NDArray[np.uint8], raw: NDArray[np.uint8] | None = None) -> None:
        """Add a label map's pixels; `raw` is the label file as it is."""
        self.raw += np.bincount((labels if raw is None else raw).ravel(), minlength=256) > 0
        counts = np.bincount(labels.ravel(), minlength=256)
        self.pixels += counts[: self.classes]
        self.images_with += counts[: self.classes] > 0
        self.void_pixels += int(counts[self.classes :].sum())

    def add(self, other: "Findings") -> None:
        """Add the findings of an image."""
        self.problems += other.problems
        self.remarks += other.remarks
        self.outlines += other.outlines[: _OUTLINES - len(self.outlines)]
        for name in ("images", "people", "void_pixels", "pixels", "images_with", "raw"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def attempt(self, step: Callable[..., Any], *args: Any) -> Any:
        """The result of step(*args); None, and the error among the problems, where it fails."""
        try:
            return step(*args)
        except QanetError as error:
            self.problems.append(error.line(with_next=False))
            return None


def check_dataset(
    root: str | Path,
    format: str,
    labels: LabelSet | str | None = None,
    split: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Findings:
    """Look at every file of a split.

    Args:
        root, format, labels, split: as for `open_dataset`.
        progress: called with the images done and their number.
    Raises:
        QanetError: no data set or no such split at that place, or an annotation file that is no JSON.

    >>> found = check_dataset("CCP", "ccp", split="val")
    >>> found.images, found.people, found.problems
    (1, 1, [])
    """
    data = open_dataset(root, format, labels, split, lenient=True)
    total = Findings(data.label_set.num_classes)
    count = len(data.image_names)
    if isinstance(data, OfficialFolder):
        total.problems += [error.line(with_next=False) for error in data.problems]
        total.remarks += _unnamed(data)
        if not len(data):
            total.problems.append(f"the split {data.split} has no annotated person")
    look = _look_at_scene if isinstance(data, OfficialFolder) else _look_at_photo
    with ThreadPoolExecutor(_DECODERS) as pool:
        for done, found in enumerate(pool.map(lambda index: look(data, index), range(count)), start=1):  # type: ignore[arg-type]
            total.add(found)
            if progress:
                progress(done, count)
    return total


def doubts(found: Findings, labels: LabelSet) -> tuple[list[str], list[str]]:
    """What the counts of a whole data set say: problems, with which nothing right can be learnt, and remarks.

    >>> from qanet.labels import CCP13
    >>> found = check_dataset("CCP", "ccp", split="val")
    >>> doubts(found, CCP13)[1][0][:30]
    '11 classes never occur: hat, h'
    """
    problems: list[str] = []
    remarks: list[str] = []
    present = np.flatnonzero(found.pixels)
    absent = [name for name, pixels in zip(labels.classes, found.pixels) if not pixels]
    if found.images and len(present) < 2:
        everywhere = labels.classes[present[0]] if len(present) else "void"
        return [f"every pixel of every label map is {everywhere}: nothing can be learnt"], []
    ids = np.flatnonzero(found.raw[:IGNORE])
    maps = int(found.raw.max(initial=0))
    if len(ids) and maps >= _FEWEST_MAPS and ids[-1] == len(ids) - 1 and 2 * len(ids) <= labels.num_raw:
        line = (
            f"the label maps hold the ids 0 to {ids[-1]} alone, of {labels.num_raw} in {labels.name}: they look like "
            f"masks of another set with {len(ids)} classes; give its label set"
        )
        (problems if labels.name in LABEL_SETS else remarks).append(line)
    elif absent:
        many = f"{len(absent)} classes never occur" if len(absent) > 1 else "a class never occurs"
        remarks.append(f"{many}: {', '.join(absent[:_SHOWN])}{' ...' if len(absent) > _SHOWN else ''}")
    if len(found.outlines) >= _FEWEST_OUTLINES:
        wins = _own_mask_wins(found.outlines)
        if wins < _LEAST_WINS:
            problems.append(
                f"the masks do not follow edges of their photographs: in {wins:.0%} of {len(found.outlines)} a "
                "photograph's own mask fits better than another's; are they shifted, or of other photographs?"
            )
    return problems, remarks


def doubts_of_labels(data: DataSet) -> tuple[list[str], list[str]]:
    """`doubts` from some label maps of an open data set, without its photographs: a second before a training run."""
    found = Findings(data.label_set.num_classes)
    for index in np.unique(np.linspace(0, len(data.image_names) - 1, _LOOKED_AT).round().astype(int)).tolist():
        if isinstance(data, PhotoFolder):
            raw = data.raw_labels(index)
            found.count(data.translated(index, raw), raw)
        elif isinstance(data, OfficialFolder):
            found.count(data.maps(index)[0])
        found.images += 1
    return doubts(found, data.label_set)


def _outline(image: NDArray[np.uint8], labels: NDArray[np.uint8]) -> tuple[NDArray, NDArray]:
    """The rank of the gradient at each pixel, 0..1, and the labels, both at _OUTLINE_PX."""
    import cv2

    share = _OUTLINE_PX / max(labels.shape)
    size = max(2, round(labels.shape[1] * share)), max(2, round(labels.shape[0] * share))
    grey = cv2.cvtColor(cv2.resize(image, size, interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2GRAY)
    steepness = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)).ravel()
    ranks = np.empty(steepness.size, np.float32)
    ranks[np.argsort(steepness, kind="stable")] = np.linspace(0, 1, steepness.size, dtype=np.float32)
    return ranks.reshape(grey.shape), cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)


def _own_mask_wins(outlines: list[tuple[NDArray, NDArray]]) -> float:
    """Share of the photographs in which the borders of their own mask are steeper than those of the next one's."""
    import cv2

    def fit(ranks: NDArray, labels: NDArray) -> float:
        if labels.shape != ranks.shape:
            labels = cv2.resize(labels, ranks.shape[::-1], interpolation=cv2.INTER_NEAREST)
        border = np.zeros(labels.shape, bool)
        border[:, 1:] |= labels[:, 1:] != labels[:, :-1]
        border[1:] |= labels[1:] != labels[:-1]
        return float(ranks[border].mean()) if border.any() else 0.5

    others = [*outlines[1:], outlines[0]]
    wins = [fit(ranks, own) > fit(ranks, other) for (ranks, own), (_, other) in zip(outlines, others)]
    return float(np.mean(wins))


def _look_at_photo(data: PhotoFolder, index: int) -> Findings:
    found = Findings(data.label_set.num_classes, images=1)
    raw = found.attempt(data.raw_labels, index)
    image = found.attempt(decode_photo, data.photo_path(data.names[index]), None if raw is None else raw.shape)
    if raw is None:
        return found
    labels = found.attempt(data.translated, index, raw, None if image is None else image.shape[:2])
    if labels is not None:
        found.count(labels, raw)
        if image is not None and index < _OUTLINES:
            found.outlines.append(_outline(image, labels))
        found.people = int(labels.any())
        if not found.people:
            found.remarks.append(f"{data.label_path(data.names[index])} shows no person")
    return found


def _look_at_scene(data: OfficialFolder, index: int) -> Findings:
    record = data.records[index]
    found = Findings(data.label_set.num_classes, images=1, people=len(record.people))
    image = found.attempt(lambda: decode_photo(data.folder / IMAGES / record.file_name, record.hw))
    maps = found.attempt(lambda: data.maps(index))
    parts = found.attempt(lambda: data.parts(index))
    if image is not None and record.hw not in (None, image.shape[:2]):
        said = f"the JSON file says {record.hw}, the image is {image.shape[:2]}"
        found.problems.append(f"{record.file_name}: {said}")
    if maps is None:
        return found
    labels, human = maps
    found.count(labels)
    if image is not None and image.shape[:2] != labels.shape:
        found.problems.append(f"{record.file_name}: image {image.shape[:2]} and labels {labels.shape} differ in size")
    for person in record.people:
        own = found.attempt(data.person_pixels, index, person, human)
        box = found.attempt(clipped, person.box, labels.shape, record.file_name)
        if own is not None and box is not None:
            _compare_boxes(found, f"{record.file_name}: person {person.parsing_id}", box, person_box(own))
    strangers = sorted(set(np.unique(human).tolist()) - {0} - {person.parsing_id for person in record.people})
    if strangers:
        found.remarks.append(f"{record.file_name}: no person is annotated for the values {strangers} of Human_ids")
    if parts is not None and parts[0] is not None:
        _compare_parts(found, record.file_name, parts[0], parts[1], labels, human)
    return found


def _compare_boxes(found: Findings, who: str, box: NDArray[np.float32], tight: NDArray[np.float32]) -> None:
    """A box that has little to do with the person's pixels is a problem, one that is off by some pixels a remark."""
    overlap = np.maximum(np.minimum(box[2:], tight[2:]) - np.maximum(box[:2], tight[:2]), 0).prod()
    iou = overlap / ((box[2:] - box[:2]).prod() + (tight[2:] - tight[:2]).prod() - overlap)
    sides = np.tile(tight[2:] - tight[:2], 2)
    text = f"{who}: box {box.round(1).tolist()} does not fit the pixels, whose box is {tight.tolist()}"
    if iou < 0.5:
        found.problems.append(text)
    elif (np.abs(box - tight) > np.maximum(_BOX_SLACK_PX, _BOX_SLACK * sides)).any():
        found.remarks.append(text)


def _compare_parts(
    found: Findings,
    name: str,
    parts: NDArray[np.integer],
    table: NDArray[np.int64],
    labels: NDArray[np.uint8],
    human: NDArray[np.uint8],
) -> None:
    """The table must name the parts that are drawn, once each, with the class and the person of their pixels."""
    if parts.shape != labels.shape:
        found.problems.append(f"{name}: Instance_ids {parts.shape} and labels {labels.shape} differ in size")
        return
    drawn, listed = set(np.unique(parts).tolist()) - {0}, table[:, 0].tolist()
    if drawn - set(listed):
        found.problems.append(f"{name}: the part table lacks the parts {sorted(drawn - set(listed))[:8]}")
    if len(set(listed)) < len(listed):
        found.problems.append(f"{name}: the part table names a part twice")
    if set(listed) - drawn:
        found.remarks.append(f"{name}: the part table has parts without pixels: {sorted(set(listed) - drawn)[:8]}")
    classes, owners = np.zeros(1 << 16, np.uint8), np.zeros(1 << 16, np.uint8)
    inside = table[(table[:, 0] >= 0) & (table[:, 0] < 1 << 16)]
    classes[inside[:, 0]], owners[inside[:, 0]] = inside[:, 1], inside[:, 2]
    strange = (parts > 0) & ((classes[parts] != labels) | (owners[parts] != human))
    if strange.any():
        found.remarks.append(
            f"{name}: {int(strange.sum())} pixels of parts have another class or person in the other maps"
        )


def _unnamed(data: OfficialFolder) -> list[str]:
    folder = data.folder / IMAGES
    named = {record.file_name for record in data.records}
    others = (
        [p.name for p in sorted(folder.glob("*")) if p.is_file() and p.name not in named] if folder.is_dir() else []
    )
    return [f"{len(others)} images of {folder} are in no annotation, the first is {others[0]}"] if others else []
