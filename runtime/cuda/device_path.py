"""Crop, engine and tail on one GPU without a round trip: a frame goes up; labels, scores and IoU come down."""

import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from qanet.errors import QanetError, QanetWarning
from qanet.quality import PixelScores
from qanet.runtime.cuda.crop import queue_crops
from qanet.runtime.cuda.lane import Lane
from qanet.runtime.cuda.proof import kernels_verdict
from qanet.runtime.cuda.stream import Event
from qanet.runtime.cuda.tail import score_people
from qanet.runtime.cuda.tensor import DeviceArray, fetch

STAGES = ("crop", "engine", "tail")


@runtime_checkable
class DeviceEngine(Protocol):
    """What is asked of an engine, `TensorRtEngine` for one."""

    max_batch: int

    @property
    def lane(self) -> Lane:
        """Its stream and memory."""
        ...

    def prepare(self, count: int) -> None:
        """Open what a batch of this size runs on, if it is not open yet."""
        ...

    def run_on_device(
        self, count: int, box_scores: NDArray[np.float32], write_crops: Callable[[Lane, DeviceArray], None]
    ) -> AbstractContextManager[dict[str, DeviceArray]]:
        """One batch whose outputs stay on the GPU for the block."""
        ...


class DevicePath:
    """From a frame and boxes to labels and scores, on an engine's lane.

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
        lane = self._engine.lane
        ends = np.cumsum([len(boxes) for _, boxes in frames]).tolist()
        with lane.active("parsing people"):
            self._engine.prepare(ends[-1])  # before the first mark: a plan that is loaded now is no stage of a frame
            marks = [Event(lane.gpu, timing=True) for _ in range(len(STAGES) + 1)]
            lane.stream.record(marks[0])

            def write_crops(lane: Lane, crops: DeviceArray) -> None:
                for (image, boxes), end in zip(frames, ends):
                    queue_crops(lane, crops.rows(end - len(boxes), end), image, boxes)
                lane.stream.record(marks[1])

            with self._engine.run_on_device(ends[-1], box_scores, write_crops) as outputs:
                lane.stream.record(marks[2])
                found = []
                for (image, boxes), end in zip(frames, ends):
                    logits = outputs["logits"].rows(end - len(boxes), end)
                    with score_people(lane, logits, boxes, image.shape[:2], threshold) as scored:
                        found.append(scored.download())
                iou = fetch(lane, outputs["iou_scores"])
                lane.stream.record(marks[3])
            times = {stage: stop.milliseconds_since(start) for stage, start, stop in zip(STAGES, marks[:-1], marks[1:])}
            marks.clear()  # events are destroyed in the context that they live in
            return found, iou, times


def open_device_path(engine: object) -> DevicePath | None:
    """The path of an engine, its kernels loaded and asked.

    None for an engine that is no `DeviceEngine`, and, with one line, where the kernels cannot be had or answer wrongly.
    """
    if not isinstance(engine, DeviceEngine):
        return None
    try:
        with engine.lane.active("loading the kernels"):
            engine.lane.load("crop", "pixel_score")
        verdict = kernels_verdict(engine.lane)
    except QanetError as error:
        _say(str(error))
        return None
    if not verdict.right:
        _say(f"the kernels answer wrongly on this GPU ({verdict}); next: qanet doctor --prove")
        return None
    return DevicePath(engine)


def _say(why: str) -> None:
    warnings.warn(f"crops and the tail run on the CPU: {why}", QanetWarning, stacklevel=3)
