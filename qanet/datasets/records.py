"""The records of a data set (a person to train on, an image to evaluate on), and the interface of all data sets."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from qanet.datasets.annotations import DetectedBoxes
from qanet.labels import LabelSet
from qanet.metrics.records import Truth

_DECODERS = 4  # threads that decode label maps; OpenCV releases the interpreter lock


@dataclass(frozen=True)
class Sample:
    """One annotated person: image (H, W, 3) uint8 BGR, labels (H, W) uint8 with IGNORE, box (4,) float32 xyxy."""

    name: str
    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    box: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class AnnotatedImage:
    """One image with all its people.

    Attributes:
        name: its stem.
        image_id: its id in a COCO results file.
        image: (H, W, 3) uint8 BGR.
        truth: category, human and parts as `qanet.metrics` takes them.
        boxes: (N, 4) float32 xyxy pixels: the ground truth's, or a detector's.
        box_scores: (N,) float32, 1 for ground truth.
    """

    name: str
    image_id: int | str
    image: NDArray[np.uint8]
    truth: Truth
    boxes: NDArray[np.float32]
    box_scores: NDArray[np.float32]


class DataSet(ABC):
    """Indexable by person, iterable by image.

    Attributes:
        label_set: the classes.
        names: the people, in the order of their indices.
        image_names, image_ids: the images, in the order of `image`.
    """

    label_set: LabelSet
    names: list[str]
    image_names: list[str]
    image_ids: list[int | str]
    single_person: ClassVar[bool] = False

    def __len__(self) -> int:
        """Annotated people."""
        return len(self.names)

    @abstractmethod
    def __getitem__(self, index: int) -> Sample:
        """The person of that index, decoded now.

        Raises:
            QanetError: a file that is missing or broken, sizes that differ, ids outside the set, a person
                without pixels.
        """

    @abstractmethod
    def image(self, index: int) -> AnnotatedImage:
        """The image of that index (0..len(image_names) - 1) with ground-truth boxes, decoded now; raises likewise."""

    @abstractmethod
    def class_pixels(self, index: int) -> NDArray[np.int64]:
        """(P, C) pixels of each class for the P people of the image of that index, in their order."""

    def images(self, detected: DetectedBoxes | None = None) -> Iterator[AnnotatedImage]:
        """Every image; with the boxes of a detector in place of the ground truth's where those are given."""
        for index in range(len(self.image_names)):
            scene = self.image(index)
            if detected is not None:
                boxes, scores = detected.of(scene.image_id, scene.image.shape[:2])
                scene = dataclasses.replace(scene, boxes=boxes, box_scores=scores)
            yield scene

    def class_presence(self, min_pixels: int = 50) -> NDArray[np.bool_]:
        """(len, C) bool: which classes each person shows with at least `min_pixels` pixels."""
        with ThreadPoolExecutor(_DECODERS) as pool:
            counts = list(pool.map(self.class_pixels, range(len(self.image_names))))
        return np.concatenate(counts) >= min_pixels


def person_box(raw: NDArray[np.integer] | NDArray[np.bool_]) -> NDArray[np.float32]:
    """Tight xyxy box of the annotated pixels (raw id != 0), the whole image where there is none; (4,) float32.

    >>> labels = np.zeros((48, 32), np.uint8)
    >>> labels[8:40, 8:24] = 4
    >>> person_box(labels).tolist()
    [8.0, 8.0, 24.0, 40.0]
    """
    rows, columns = np.flatnonzero(raw.any(1)), np.flatnonzero(raw.any(0))
    if len(rows) == 0:
        return np.array([0, 0, raw.shape[1], raw.shape[0]], np.float32)
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)
