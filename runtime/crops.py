"""Crops of people from a data set, a video or images, for calibration; by the kernels that the runtime uses."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qanet.datasets import DataSet, format_of, open_dataset, splits_of
from qanet.errors import QanetError
from qanet.geometry import crop_boxes
from qanet.runtime.detectors.base import Detector
from qanet.runtime.kernels import choose_kernels
from qanet.runtime.video.sources import open_source


class PeopleCrops:
    """Iterates batches (B, H, W, 3) uint8 BGR; `digest` is the sha256 of all crops given out so far."""

    def __init__(self, batches: Iterator[NDArray[np.uint8]], expected: int):
        self._batches = batches
        self.expected = expected
        self._hash = hashlib.sha256()

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        for batch in self._batches:
            self._hash.update(batch.tobytes())
            yield batch

    @property
    def digest(self) -> str:
        """Hex sha256 of the crops' pixels."""
        return self._hash.hexdigest()


Framing = Callable[[NDArray[np.float32], tuple[int, int]], NDArray[np.float32]]


def people_crops(
    data: Path,
    crop_hw: tuple[int, int],
    limit: int,
    detector: Detector | None = None,
    whole: bool = False,
    framing: Framing | None = None,
) -> PeopleCrops:
    """Up to `limit` crops, spread evenly over the data.

    Args:
        data: a data set folder of any format (boxes of its annotation, split `train` where there is one), or a video,
            an image or a folder of images (boxes from the detector).
        detector: None: the shipped one.
        whole: whole images in their letterbox instead of people, for the calibration of a detector; of a video, an
            image or a folder of images.
        framing: gives what to crop, of boxes (N, 4) and the picture's (H, W); None: grown boxes of people.
    Raises:
        QanetError: no such input, or no people in it.
    """
    framing = framing or (lambda boxes, _: crop_boxes(boxes, crop_hw))
    if whole:
        return PeopleCrops(_whole_images(data, crop_hw, limit), limit)
    format = format_of(data)
    if format is None:
        return PeopleCrops(_of_frames(data, crop_hw, limit, detector, framing), limit)
    # with the classes of the data, not of the model: a crop is the same whatever its pixels are called
    folder = open_dataset(data, format, split="train" if "train" in splits_of(data, format) else None)
    return PeopleCrops(_of_data_set(folder, crop_hw, limit, framing), min(limit, len(folder)))


def _of_data_set(data: DataSet, crop_hw: tuple[int, int], limit: int, framing: Framing) -> Iterator[NDArray[np.uint8]]:
    kernels = choose_kernels()
    for index in np.unique(np.linspace(0, len(data) - 1, min(limit, len(data))).round().astype(int)):
        sample = data[int(index)]
        yield kernels.crop_people(sample.image, framing(sample.box[None], sample.image.shape[:2]), crop_hw)


def _of_frames(
    data: Path, crop_hw: tuple[int, int], limit: int, detector: Detector | None, framing: Framing
) -> Iterator[NDArray[np.uint8]]:
    if detector is None:
        from qanet.runtime.detectors.open import PersonDetector

        detector = PersonDetector()
    kernels, source = choose_kernels(), open_source(str(data))
    step = max(1, source.expected_frames // limit)
    given = 0
    for frame in source:
        if frame.index % step:
            continue
        found = detector.detect(frame.image, frame.index).usable()
        if len(found):
            where = framing(found.boxes, frame.image.shape[:2])
            crops = kernels.crop_people(frame.image, where, crop_hw)[: limit - given]
            given += len(crops)
            yield crops
        if given >= limit:
            return
    if given == 0:
        raise QanetError(
            f"no people were found in {data}",
            expected="people to calibrate on",
            got=f"{source.expected_frames} frames",
            next_command="give --detector ONNX, or a data set folder",
        )


def _whole_images(data: Path, input_hw: tuple[int, int], limit: int) -> Iterator[NDArray[np.uint8]]:
    kernels, source = choose_kernels(), open_source(str(data))
    chosen = set(np.unique(np.linspace(0, source.expected_frames - 1, limit).round().astype(int)).tolist())
    for frame in source:
        if frame.index in chosen or source.expected_frames <= 0:
            yield kernels.letterboxed(frame.image, input_hw)[0][None]
