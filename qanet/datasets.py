"""Data sets that are folders of photographs and label PNGs: CCP's and CelebAMask's layouts.

Layout: <root>/photos/*.jpg and <root>/labels/*.png with equal stems; <root>/<split>.txt lists the stems of a
split. A folder without the split's file is taken whole.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qanet.errors import QanetError
from qanet.labels import LabelSet

DATA_FORMATS = ("ccp", "celebamask")


@dataclass(frozen=True)
class Sample:
    """One annotated person: image (H, W, 3) uint8 BGR, labels (H, W) uint8 with IGNORE, box (4,) float32 xyxy."""

    name: str
    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    box: NDArray[np.float32]


class PhotoFolder:
    """Photographs with one annotated person each; indexable, decodes on access."""

    def __init__(self, root: str | Path, labels: LabelSet, split: str | None = None):
        self.root = Path(root)
        self.label_set = labels
        if not (self.root / "photos").is_dir() or not (self.root / "labels").is_dir():
            raise QanetError(
                f"no data set at {self.root}", expected="a folder with photos/ and labels/",
                got="neither" if not self.root.is_dir() else sorted(p.name for p in self.root.iterdir())[:8],
                next_command="qanet val ... --data DIR --format ccp",
            )  # fmt: skip
        photos = {p.stem: p for p in (self.root / "photos").iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png")}
        split_file = self.root / f"{split}.txt"
        if split is not None and split_file.exists():
            names = split_file.read_text().split()
        elif split is not None and any(self.root.glob("*.txt")) and (self.root / "train.txt").exists():
            raise QanetError(f"no split {split!r} in {self.root}", expected=f"a file {split_file.name}", got="none")
        else:
            names = sorted(photos)
        if not names:
            raise QanetError(f"the split is empty: {self.root}", expected="at least one photograph", got=0)
        missing = [n for n in names if n not in photos or not self._label_path(n).exists()]
        if missing:
            raise QanetError(
                f"{len(missing)} of {len(names)} names have no photograph or no label, the first is {missing[0]}",
                expected=f"photos/{missing[0]}.jpg and labels/{missing[0]}.png", got="missing",
            )  # fmt: skip
        self.names = names
        self._photos = photos

    def _label_path(self, name: str) -> Path:
        return self.root / "labels" / f"{name}.png"

    def __len__(self) -> int:
        return len(self.names)

    def raw_labels(self, index: int) -> NDArray[np.uint8]:
        """The label file as it is, (H, W) uint8."""
        import cv2

        path = self._label_path(self.names[index])
        raw = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if raw is None or raw.ndim != 2 or raw.dtype != np.uint8:
            got = "unreadable" if raw is None else f"{raw.dtype} {raw.shape}"
            raise QanetError(f"broken label file {path}", expected="an 8-bit one-channel PNG", got=got)
        return raw

    def __getitem__(self, index: int) -> Sample:
        import cv2

        name = self.names[index]
        image = cv2.imread(str(self._photos[name]), cv2.IMREAD_COLOR)
        if image is None:
            raise QanetError(f"broken image file {self._photos[name]}", expected="a JPEG or PNG", got="unreadable")
        raw = self.raw_labels(index)
        if raw.shape != image.shape[:2]:
            raise QanetError(
                f"{name}: photograph and label differ in size", expected=image.shape[:2], got=raw.shape
            )  # fmt: skip
        return Sample(name, image, self.label_set.lookup[raw], person_box(raw))

    def class_presence(self, min_pixels: int = 50) -> NDArray[np.bool_]:
        """(len, C) bool: which classes each sample shows with at least `min_pixels` pixels."""
        presence = np.zeros((len(self), self.label_set.num_classes), bool)
        for index in range(len(self)):
            counts = np.bincount(self.label_set.lookup[self.raw_labels(index)].ravel(), minlength=256)
            presence[index] = counts[: presence.shape[1]] >= min_pixels
        return presence


def person_box(raw: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Tight xyxy box of the annotated pixels (raw id != 0), the whole image where there is none; (4,) float32."""
    rows, columns = np.flatnonzero(raw.any(1)), np.flatnonzero(raw.any(0))
    if len(rows) == 0:
        return np.array([0, 0, raw.shape[1], raw.shape[0]], np.float32)
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)
