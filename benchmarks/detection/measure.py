"""Two detectors on the same frames: what one finds of the other's people, and how long it takes."""

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.benchmarks.detection.closer import look_closer
from qanet.errors import QanetError
from qanet.geometry import pairwise_iou, suppress
from qanet.metrics.detection import DetectedImage, recall_at_false_rate
from qanet.runtime.detectors.base import Detections, Detector

_SAME_IOU = 0.5  # of two looks at one person


@dataclass(frozen=True)
class Question:
    """What is asked.

    Attributes:
        least_score, least_height_px: of the teacher's boxes that are to be found.
        iou: from which on a box counts as found.
        false_per_frame: boxes on nobody that are allowed.
    """

    least_score: float = 0.5
    least_height_px: float = 60.0
    iou: float = 0.5
    false_per_frame: float = 0.1


@dataclass(frozen=True, eq=False)
class Compared:
    """One frame: what was found, what the teacher found, and what it found when it looked closer."""

    found: Detections
    taught: Detections
    closer: Detections | None = None


def compare(
    frames: Iterable[NDArray[np.uint8]], detector: Detector, teacher: Detector, closer: bool = False
) -> tuple[list[Compared], list[float]]:
    """Both detectors on every frame, and the detector's milliseconds on each.

    Args:
        closer: the teacher looks at parts of each frame too.
    Raises:
        QanetError: no frames.
    """
    compared, times_ms = [], []
    for number, frame in enumerate(frames):
        start = time.perf_counter()
        found = detector.detect(frame, number)
        times_ms.append((time.perf_counter() - start) * 1e3)
        near = look_closer(teacher, frame, number) if closer else None
        compared.append(Compared(found, teacher.detect(frame, number), near))
    if not compared:
        raise QanetError("there is no frame to compare on", expected="one or more", got=0)
    return compared, times_ms


def report(compared: list[Compared], times_ms: list[float], question: Question, threshold: float) -> dict[str, Any]:
    """The numbers.

    Args:
        threshold: the detector's usual one, at which recall and false boxes are told as well.
    Returns:
        "strict": recall where every box that matches none of those to be found is false; "fair": where a box on one of
        the teacher's other people (smaller, or less sure) is neither right nor false; "usual": at `threshold`, strict;
        and the time a frame. If it looked closer: "closer": where what it saw then is neutral too; "thorough": where
        what it saw in either look is to be found, and its small and unsure ones are neutral; "teacher_strict"
        and "teacher_fair": "strict" and "fair" of what it saw then, as if that were the detector's: what these counts
        are worth to one who sees more than the teacher.
    """
    strict = [_image(one, question, fair=False) for one in compared]
    counts = {"strict": strict, "fair": [_image(one, question, fair=True) for one in compared]}
    if compared[0].closer is not None:
        counts["closer"] = [_image(one, question, fair=True, closer=True) for one in compared]
        counts["thorough"] = [_image(Compared(one.found, _both_looks(one)), question, fair=True) for one in compared]
        itself = [Compared(one.closer, one.taught) for one in compared if one.closer is not None]
        counts["teacher_strict"], counts["teacher_fair"] = (
            [_image(one, question, fair) for one in itself] for fair in (False, True)
        )
    answers = {
        name: asdict(recall_at_false_rate(images, question.false_per_frame, question.iou))
        for name, images in counts.items()
    }
    return {
        "frames": len(compared),
        "teacher_boxes": sum(len(image.true) for image in strict),
        **answers,
        "usual": _at(strict, threshold, question.iou),
        "milliseconds": {"p50": float(np.percentile(times_ms, 50)), "p90": float(np.percentile(times_ms, 90))},
        "question": asdict(question),
    }


def _both_looks(one: Compared) -> Detections:
    """What the teacher saw in the frame or in its parts, each person once."""
    if one.closer is None:
        return one.taught
    boxes = np.concatenate([one.taught.boxes, one.closer.boxes])
    scores = np.concatenate([one.taught.scores, one.closer.scores])
    kept = suppress(boxes, scores, _SAME_IOU)
    return Detections(boxes[kept], scores[kept])


def _image(one: Compared, question: Question, fair: bool, closer: bool = False) -> DetectedImage:
    boxes, scores = one.taught.boxes, one.taught.scores
    wanted = (scores > question.least_score) & (boxes[:, 3] - boxes[:, 1] >= question.least_height_px)
    neutral = boxes[~wanted] if fair else boxes[:0]
    if closer and one.closer is not None:
        neutral = np.concatenate([neutral, one.closer.boxes])
    return DetectedImage(one.found.boxes, one.found.scores, boxes[wanted], neutral)


def _at(images: list[DetectedImage], threshold: float, iou: float) -> dict[str, float]:
    """Recall and false boxes a frame with one threshold."""
    found = total = given = 0
    for image in images:
        boxes = image.boxes[image.scores >= threshold]
        overlaps = pairwise_iou(boxes, image.true)
        free = np.ones(len(image.true), bool)
        for row in overlaps:  # the detector gives its best first
            row = np.where(free, row, -1.0)
            if len(row) and row.max() >= iou:
                free[int(row.argmax())] = False
        found, total, given = found + int((~free).sum()), total + len(free), given + len(boxes)
    recall = found / total if total else float("nan")
    return {"threshold": threshold, "recall": recall, "false_per_image": (given - found) / len(images)}
