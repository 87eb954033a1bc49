"""Crop, engine and tail on one GPU: a frame is uploaded; labels, scores and IoU are downloaded, nothing in between.

The kernels are compared with NumPy once per GPU, driver and build of the kernels (`kernels_verdict`).
"""

import hashlib
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cache
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from qanet import geometry, quality
from qanet.errors import QanetError, QanetWarning
from qanet.quality import PixelScores
from qanet.runtime import native
from qanet.runtime.answers.verdicts import Verdict, recall, remember, verdict_key
from qanet.runtime.cuda.build import KERNELS
from qanet.runtime.cuda.crop import queue_crops
from qanet.runtime.cuda.device import Event
from qanet.runtime.cuda.gpu_context import DeviceArray, GpuContext, Tensor, fetch
from qanet.runtime.cuda.tail import score_people
from qanet.runtime.kernels import choose_kernels

STAGES = ("crop", "engine", "tail")
_IMAGE_HW, _CROP_HW, _MAP_HW, _CLASSES = (90, 120), (64, 48), (16, 12), 7
_EXACT, _OPENCV = 1.0, 3.0  # limits of a crop's pixel, in grey levels: against the C++ crops, and against OpenCV's
_SCORE, _LABELS = 1e-4, 1e-3  # limits: of a score, share of labels


@runtime_checkable
class DeviceEngine(Protocol):
    """An engine that can run on the GPU's own arrays, such as `TensorRtEngine`."""

    max_batch: int

    @property
    def gpu(self) -> GpuContext:
        """Its stream and memory."""
        ...

    def prepare(self, count: int) -> None:
        """Open what a batch of this size runs on, if it is not open yet."""
        ...

    def run_on_device(
        self, count: int, box_scores: NDArray[np.float32], write_crops: Callable[[GpuContext, DeviceArray], None]
    ) -> AbstractContextManager[dict[str, DeviceArray]]:
        """One batch whose outputs stay on the GPU for the block."""
        ...


class DevicePath:
    """From a frame and boxes to labels and scores, on an engine's GPU context.

    Attributes:
        max_batch: the most people of a run.
    """

    def __init__(self, engine: DeviceEngine):
        self._engine, self.max_batch = engine, engine.max_batch

    def run(
        self, image: NDArray[np.uint8], boxes: NDArray[np.float32], box_scores: NDArray[np.float32], threshold: float
    ) -> tuple[PixelScores, NDArray[np.float32], dict[str, float]]:
        """The people of one frame: see `run_together`."""
        scored, iou, times = self.run_together([(image, boxes)], box_scores, threshold)
        return scored[0], iou, times

    def run_together(
        self,
        frames: Sequence[tuple[NDArray[np.uint8], NDArray[np.float32]]],
        box_scores: NDArray[np.float32],
        threshold: float,
    ) -> tuple[list[PixelScores], NDArray[np.float32], dict[str, float]]:
        """The people of some frames, in one batch.

        Args:
            frames: of each its (H, W, 3) uint8 BGR image and (n, 4) crop boxes (`geometry.crop_boxes`); N boxes in
                all, of 1 to the engine's max_batch, none without one.
            box_scores: (N,) of the detector.
            threshold: T of the pixel score.
        Returns:
            Labels and pixel scores of each frame, the raw IoU scores (N,) float32, and milliseconds of each of STAGES
            on the GPU's clock, its waits for the host included.
        Raises:
            QanetError: arrays that do not fit, or CUDA or TensorRT failed.
        """
        gpu = self._engine.gpu
        ends = np.cumsum([len(boxes) for _, boxes in frames]).tolist()
        with gpu.active("parsing people"):
            self._engine.prepare(ends[-1])  # before the first mark: loading a plan is no stage of a frame
            marks = [Event(gpu.device, timing=True) for _ in range(len(STAGES) + 1)]
            gpu.stream.record(marks[0])

            def write_crops(gpu: GpuContext, crops: DeviceArray) -> None:
                for (image, boxes), end in zip(frames, ends):
                    queue_crops(gpu, crops.rows(end - len(boxes), end), image, boxes)
                gpu.stream.record(marks[1])

            with self._engine.run_on_device(ends[-1], box_scores, write_crops) as outputs:
                gpu.stream.record(marks[2])
                found = []
                for (image, boxes), end in zip(frames, ends):
                    logits = outputs["logits"].rows(end - len(boxes), end)
                    with score_people(gpu, logits, boxes, image.shape[:2], threshold) as scored:
                        found.append(scored.download())
                iou = fetch(gpu, outputs["iou_scores"])
                gpu.stream.record(marks[3])
            times = {stage: stop.milliseconds_since(start) for stage, start, stop in zip(STAGES, marks[:-1], marks[1:])}
            marks.clear()  # events are destroyed in the context that they live in
            return found, iou, times


def open_device_path(engine: object) -> DevicePath | None:
    """The device path of an engine, with its kernels loaded and tested.

    None for an engine that is no `DeviceEngine`, and, with a warning, where the kernels cannot be loaded or are wrong.
    """
    if not isinstance(engine, DeviceEngine):
        return None
    try:
        with engine.gpu.active("loading the kernels"):
            engine.gpu.load("crop", "pixel_score")
        verdict = kernels_verdict(engine.gpu)
    except QanetError as error:
        _warn(str(error))
        return None
    if not verdict.right:
        _warn(f"the kernels answer wrongly on this GPU ({verdict}); next: qanet doctor --prove")
        return None
    return DevicePath(engine)


def _warn(reason: str) -> None:
    warnings.warn(f"crops and the tail run on the CPU: {reason}", QanetWarning, stacklevel=3)


def kernels_verdict(gpu: GpuContext) -> Verdict:
    """The verdict on the crop kernel and the kernel tail of a GPU, from the user's cache or tested now.

    Raises:
        QanetError: the kernels cannot be loaded or launched.
    """
    key = verdict_key("kernels", gpu.device.identity, _sources())
    verdict = recall(key)
    if verdict is None:
        verdict = _test(gpu)
        remember(key, verdict)
    return verdict


@cache
def _sources() -> str:
    digest = hashlib.sha256()
    for path in sorted(KERNELS.glob("*.cu*")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _test(gpu: GpuContext) -> Verdict:
    """A textured frame, boxes inside, beyond its border and small, and smooth logits: all of it drawn, not random noise
    alone, so that few pixels lie on a tie."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[: _IMAGE_HW[0], : _IMAGE_HW[1]]
    waves = 127 + 90 * np.sin(rows / 9)[..., None] * np.cos(columns[..., None] / np.array([7, 11, 13]))
    image = (waves + rng.normal(0, 8, waves.shape)).clip(0, 255).astype(np.uint8)
    boxes = np.array([[10, 5, 70, 85], [-20, 30, 60, 110], [50, 40, 62, 56], [0, 0, 120, 90]], np.float32)
    boxes = geometry.crop_boxes(boxes, _CROP_HW)
    coarse = rng.normal(0, 3, (len(boxes), _CLASSES, _MAP_HW[0] // 4, _MAP_HW[1] // 4))
    logits = coarse.repeat(4, 2).repeat(4, 3).astype(np.float32) + rng.normal(0, 0.3, (4, _CLASSES, *_MAP_HW))
    logits = np.ascontiguousarray(logits, np.float32)
    with gpu.active("testing the kernels"):
        with Tensor(gpu, "proof.crops", (len(boxes), *_CROP_HW, 3), np.uint8) as crops:
            queue_crops(gpu, crops.first(len(boxes)), image, boxes)
            cropped = fetch(gpu, crops.first(len(boxes)))
        with Tensor(gpu, "proof.logits", logits.shape, np.float32) as maps:
            maps.upload(logits)
            with score_people(gpu, maps.first(len(boxes)), boxes, _IMAGE_HW, quality.PIXEL_SCORE_THRESHOLD) as scored:
                found = scored.download()
    expected = quality.pixel_score(logits, boxes, _IMAGE_HW)
    exact = choose_kernels().crop_people(image, boxes, _CROP_HW)
    pairs = list(zip(expected.labels, found.labels))
    differing = sum(int((a != b).sum()) for a, b in pairs) / max(sum(a.size for a, _ in pairs), 1)
    differences = {
        "crops": (float(np.abs(exact.astype(int) - cropped).max()), _EXACT if native.available() else _OPENCV),
        "pixel_scores": (_worst(expected.pixel_scores, found.pixel_scores), _SCORE),
        "part_scores": (_worst(expected.part_scores, found.part_scores), _SCORE),
        "labels": (differing, _LABELS),
    }
    right = all(value <= limit for value, limit in differences.values())
    return Verdict(right, "NumPy", differences, None, None, 0.0)


def _worst(expected: np.ndarray, found: np.ndarray) -> float:
    error = np.abs(np.asarray(expected, np.float64) - found)
    return float(error.max(initial=0)) if np.isfinite(error).all() else 1e30
