"""The input's frames and the people in them: what every target works on."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from qanet.bundle import Bundle
from qanet.errors import QanetError
from qanet.runtime.detectors.base import Detections, Detector
from qanet.runtime.detectors.open import open_detector
from qanet.runtime.kernels import choose_kernels
from qanet.runtime.video.frame import Frame, Source

_LARGEST_STEP = 30  # a long video is not decoded to its end for the sake of a few frames


@dataclass(frozen=True)
class Sample:
    """A frame with people: image (H, W, 3) uint8 BGR, detections, crop boxes (N, 4), crops (N, h, w, 3) uint8 BGR."""

    name: str
    image: NDArray[np.uint8]
    found: Detections
    grown: NDArray[np.float32]
    crops: NDArray[np.uint8]


@dataclass
class SampleSet:
    """Frames with people, and how they were found; durations in milliseconds."""

    kind: str  # "video", "folder", "image"
    detector: str
    samples: list[Sample] = field(default_factory=list)
    frames: int = 0  # looked at, with or without people
    decode_ms: list[float] = field(default_factory=list)
    detect_ms: list[float] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def people(self) -> int:
        """Number of people in all frames."""
        return sum(len(sample.found) for sample in self.samples)

    @property
    def mean_people(self) -> float:
        """People per frame, over the frames that have any."""
        return self.people / max(len(self.samples), 1)

    def crops(self, limit: int | None = None) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Crops (N, h, w, 3) uint8 and box scores (N,) of all people, thinned out evenly to `limit`."""
        crops = np.concatenate([sample.crops for sample in self.samples])
        scores = np.concatenate([sample.found.scores for sample in self.samples])
        if limit is not None and len(crops) > limit:
            chosen = np.linspace(0, len(crops) - 1, limit).round().astype(int)
            crops, scores = crops[chosen], scores[chosen]
        return crops, scores


def open_people_detector(
    name: str | None,
    boxes: str | None = None,
    whole_image: bool = False,
    threads: int | None = None,
    score_threshold: float | None = None,
) -> Detector:
    """The detector of a bundle's name or an ONNX file (None: the shipped one), or boxes from a file, or one person per
    image who fills it; see `open_detector`."""
    return open_detector(name, boxes=boxes, whole_image=whole_image, threads=threads, score_threshold=score_threshold)


def collect(source: Source, detector: Detector, bundle: Bundle, limit: int) -> SampleSet:
    """Up to `limit` frames spread over the input, with the people in them as the bundle crops them.

    Raises:
        QanetError: no frame, or no person in any of them.
    """
    gathered = SampleSet(source.kind, detector.name)
    for frame in _spread(source, limit, gathered.decode_ms):
        key = frame.name if not frame.name.isdigit() else frame.index
        begin = time.perf_counter()
        found = detector.detect(frame.image, key).usable()
        gathered.detect_ms.append((time.perf_counter() - begin) * 1e3)
        gathered.frames += 1
        if len(found):
            grown = bundle.crop_boxes(found.boxes, frame.image.shape[:2])
            crops = choose_kernels().crop_people(frame.image, grown, bundle.input_hw)
            gathered.samples.append(Sample(frame.name, frame.image, found, grown, crops))
    gathered.warnings += source.warnings
    if not gathered.samples:
        raise QanetError(
            f"no person was found in {gathered.frames} frames, so there is nothing to measure",
            expected="frames with people",
            got=f"detector {detector.name}",
            next_command="give --detector NAME, --boxes JSON, or --whole-image",
        )
    return gathered


def recrop(samples: SampleSet, bundle: Bundle) -> SampleSet:
    """The same frames and people, cropped for another model."""
    again = []
    for sample in samples.samples:
        grown = bundle.crop_boxes(sample.found.boxes, sample.image.shape[:2])
        crops = choose_kernels().crop_people(sample.image, grown, bundle.input_hw)
        again.append(Sample(sample.name, sample.image, sample.found, grown, crops))
    return replace(samples, samples=again)


def _spread(source: Source, limit: int, decode_ms: list[float]) -> Iterator[Frame]:
    """Every k-th frame, at most `limit`; decoding is timed for every frame that is passed over too."""
    step = max(1, source.expected_frames // limit)
    if source.kind == "video":
        step = min(step, _LARGEST_STEP)
    given = 0
    frames = iter(source)
    while given < limit:
        begin = time.perf_counter()
        try:
            frame = next(frames)
        except StopIteration:
            return
        decode_ms.append((time.perf_counter() - begin) * 1e3)
        if frame.index % step == 0:
            given += 1
            yield frame
