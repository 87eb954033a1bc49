"""One data set of several: Clothing Co-Parsing with its own masks, and folders of people labelled by others."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from qanet.datasets import AnnotatedImage, DataSet, PhotoFolder, Sample
from qanet.errors import QanetError
from qanet.labels import CCP13
from qanet.train.people.folder import PeopleFolder
from qanet.train.people.partial import fashion_lookup


class Mixture(DataSet):
    """The people of a fully annotated set, then those of folders; an index says of whom."""

    single_person = True

    def __init__(self, annotated: DataSet, folders: Sequence[PeopleFolder], shares: Sequence[float]):
        """The set, the folders, and how much of what is drawn comes from each folder.

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
        """Which part an index lies in, and where there."""
        part = int(np.searchsorted(self._ends, index, side="right"))
        return part, index - (int(self._ends[part - 1]) if part else 0)

    def outlined(self, index: int) -> bool:
        """Whether a person's outline is drawn so well that another background can stand behind it."""
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
