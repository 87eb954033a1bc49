"""A person detector against a larger one, its teacher, on a video: recall at a rate of false boxes, and time.

    python -m qanet.benchmarks.lab.detector_on_video person-lite0 --video clip.mp4 --teacher yolox_nano.onnx --from 0.5

A small teacher misses people in a large frame, so that a detector that finds them seems wrong. With --closer the
teacher also runs on parts of each frame at its own input size; a person whom it finds only there need not be found, and
is no error either.
"""

import argparse
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.bundle import PRECISIONS, open_bundle
from qanet.commandline import CommandParser, emit, note, run_module
from qanet.errors import QanetError
from qanet.geometry import pairwise_iou, suppress
from qanet.metrics.detection import DetectedImage, recall_at_false_rate
from qanet.runtime.detectors.base import Detections, Detector
from qanet.runtime.detectors.open import SCORE_THRESHOLD, OnnxDetector, PersonDetector, names_a_bundle
from qanet.runtime.video.sources import open_source

_SHARES = (1.0, 0.65)  # of the frame's shorter side: the sides of the squares
_RIM_PX = 2.0  # a box that ends at a cut is of a person who is cut
_NMS_IOU = 0.6
_LEAST_CLOSE_SCORE = 0.3  # many parts give many boxes: a less certain one excuses no false box
_SAME_IOU = 0.5  # of two boxes of one person
_LEAST_SCORE = 0.05  # of the boxes that thresholds are searched among
_TEACHER_LEAST_SCORE = 0.1  # a less certain box is background


def squares_of(image_hw: tuple[int, int]) -> list[tuple[int, int, int]]:
    """x0, y0 and side of overlapping squares that cover a frame (H, W), for each of the sides."""
    squares = []
    for share in _SHARES:
        side = max(round(share * min(image_hw)), 1)
        rows, columns = (_starts(size, side) for size in image_hw)
        squares += [(x, y, side) for y in rows for x in columns]
    return squares


def look_closer(teacher: Detector, image: NDArray[np.uint8], frame: int | str) -> Detections:
    """The teacher's boxes in the squares, in the frame's pixels; people whom a square cuts are left out."""
    height, width = image.shape[:2]
    boxes, scores = [np.zeros((0, 4), np.float32)], [np.zeros(0, np.float32)]
    for x, y, side in squares_of((height, width)):
        found = teacher.detect(np.ascontiguousarray(image[y : y + side, x : x + side]), frame)
        low, high = found.boxes[:, :2], found.boxes[:, 2:]
        begins, ends = np.array([x > 0, y > 0]), np.array([x + side < width, y + side < height])
        cut = ((low <= _RIM_PX) & begins).any(1) | ((high >= side - _RIM_PX) & ends).any(1)
        taken = ~cut & (found.scores >= _LEAST_CLOSE_SCORE)
        boxes.append(found.boxes[taken] + np.array([x, y, x, y], np.float32))
        scores.append(found.scores[taken])
    all_boxes, all_scores = np.concatenate(boxes), np.concatenate(scores)
    kept = suppress(all_boxes, all_scores, _NMS_IOU)
    return Detections(all_boxes[kept], all_scores[kept])


def _starts(size: int, side: int) -> list[int]:
    """Where the parts of a length begin: evenly, overlapping by half or more."""
    count = 1 if size <= side else 1 + int(np.ceil(2 * (size - side) / side))
    return [round(v) for v in np.linspace(0, max(size - side, 0), count)]


@dataclass(frozen=True)
class Question:
    """When a box counts.

    Attributes:
        least_score, least_height_px: of the teacher's boxes that are to be found.
        iou: least overlap of a box that was found.
        false_per_frame: false boxes that are allowed.
    """

    least_score: float = 0.5
    least_height_px: float = 60.0
    iou: float = 0.5
    false_per_frame: float = 0.1


@dataclass(frozen=True, eq=False)
class Compared:
    """One frame: the detector's boxes, the teacher's, and the teacher's in parts of the frame."""

    found: Detections
    taught: Detections
    closer: Detections | None = None


def compare(
    frames: Iterable[NDArray[np.uint8]], detector: Detector, teacher: Detector, closer: bool = False
) -> tuple[list[Compared], list[float]]:
    """Both detectors on every frame, and the detector's milliseconds on each.

    Args:
        closer: the teacher runs on parts of each frame too.
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
        raise QanetError("the video has no frame in this part", expected="one or more", got=0)
    return compared, times_ms


def report(compared: list[Compared], times_ms: list[float], question: Question, threshold: float) -> dict[str, Any]:
    """The numbers.

    Args:
        threshold: the detector's usual one, for recall and false boxes in use.
    Returns:
        Recall by what a box may match. "strict": every box that matches none of the people to be found is false;
        "fair": a box on one of the teacher's other people (smaller, or of a low score) is neutral; "usual": at
        `threshold`, strict. With boxes in parts of the frame also "closer": those are neutral too; "thorough": the
        teacher's boxes in the frame or in its parts are to be found; "teacher_strict" and "teacher_fair": the teacher's
        boxes in the parts scored as the detector's, which is the most that these counts grant a better detector.
        "milliseconds" are per frame.
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
    """The teacher's boxes in the frame or in its parts, one per person."""
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
    """Recall and false boxes per frame at one threshold."""
    found = total = given = 0
    for image in images:
        boxes = image.boxes[image.scores >= threshold]
        overlaps = pairwise_iou(boxes, image.true)
        free = np.ones(len(image.true), bool)
        for row in overlaps:  # in descending order of score
            row = np.where(free, row, -1.0)
            if len(row) and row.max() >= iou:
                free[int(row.argmax())] = False
        found, total, given = found + int((~free).sum()), total + len(free), given + len(boxes)
    recall = found / total if total else float("nan")
    return {"threshold": threshold, "recall": recall, "false_per_image": (given - found) / len(images)}


def main(argv: Sequence[str]) -> int:
    """Entry point."""
    args = _arguments().parse_args(argv)
    if not 0 <= args.start < args.end <= 1 or args.every < 1:
        raise QanetError(
            "bad part of the video",
            expected="0 <= --from < --to <= 1, --every 1 or more",
            got=(args.start, args.end, args.every),
        )
    question = Question(args.least_score, args.least_height, args.iou, args.false_rate)
    detector = _detector(args)
    teacher = OnnxDetector(Path(args.teacher), _TEACHER_LEAST_SCORE, args.threads)
    frames = _frames(args.video, args.start, args.end, args.every)
    compared, times_ms = compare(frames, detector, teacher, args.closer)
    document = report(compared, times_ms, question, SCORE_THRESHOLD)
    document = {
        "detector": detector.name,
        "teacher": teacher.name,
        "video": Path(args.video).name,
        "from": args.start,
        "to": args.end,
        "precision": args.precision,
        **document,
    }
    emit(args.json, document, _text(document))
    if args.save:
        _save(args, document)
    return 0


def _arguments() -> argparse.ArgumentParser:
    parser = CommandParser(prog="python -m qanet.benchmarks.lab.detector_on_video", description=__doc__.split("\n")[0])
    parser.add_argument("detector", metavar="DETECTOR", help="a bundle or an ONNX detector")
    parser.add_argument("--video", required=True)
    parser.add_argument("--teacher", required=True, metavar="ONNX")
    parser.add_argument("--from", dest="start", type=float, default=0.0, metavar="SHARE", help="0.667: the last third")
    parser.add_argument("--to", dest="end", type=float, default=1.0, metavar="SHARE")
    parser.add_argument("--every", type=int, default=1, metavar="K", help="every K-th frame")
    parser.add_argument("--false-rate", type=float, default=0.1, help="false boxes per frame that are allowed (0.1)")
    parser.add_argument("--iou", type=float, default=0.5)
    parser.add_argument("--least-score", type=float, default=0.5, help="of the teacher's boxes to be found (0.5)")
    parser.add_argument("--least-height", type=float, default=60.0, metavar="PX", help="of those boxes (60)")
    parser.add_argument("--closer", action="store_true", help="run the teacher on parts of each frame too (slow)")
    parser.add_argument("--precision", default="auto", choices=("auto", *PRECISIONS), help="of a bundle")
    parser.add_argument("--threads", type=int, help="CPU threads of each detector")
    parser.add_argument("--save", action="store_true", help="add the result to the bundle's accuracy")
    parser.add_argument("--json", action="store_true")
    return parser


def _detector(args: argparse.Namespace) -> Detector:
    if names_a_bundle(args.detector):
        return PersonDetector(args.detector, _LEAST_SCORE, "cpu", args.precision, args.threads)
    return OnnxDetector(Path(args.detector), _LEAST_SCORE, args.threads)


def _frames(video: str, start: float, end: float, every: int) -> Iterator[NDArray[np.uint8]]:
    source = open_source(video)
    count = source.expected_frames
    if not count and (start, end) != (0.0, 1.0):
        raise QanetError(f"{video} has no known length", expected="a file, for a part of it", got="a stream")
    first, last = round(start * count), round(end * count)
    for frame in source:
        if (not count or first <= frame.index < last) and (frame.index - first) % every == 0:
            yield frame.image


def _text(document: dict[str, Any]) -> str:
    question, strict, fair, usual = (document[key] for key in ("question", "strict", "fair", "usual"))
    lines = [
        f"{document['detector']} against {document['teacher']} on {document['frames']} frames of {document['video']}, "
        f"{document['teacher_boxes']} boxes of score above {question['least_score']:g} and "
        f"{question['least_height_px']:g} px or more, IoU {question['iou']:g}",
        f"recall {strict['recall']:.3f} at {question['false_per_frame']:g} false boxes per frame "
        f"(threshold {strict['threshold']:.3f}); {fair['recall']:.3f} where boxes on the teacher's other people are "
        f"not false (threshold {fair['threshold']:.3f})",
        f"at threshold {usual['threshold']:g}: recall {usual['recall']:.3f}, {usual['false_per_image']:.3f} false "
        f"boxes per frame; {document['milliseconds']['p50']:.1f} ms per frame (median), with letterbox and suppression",
    ]
    if closer := document.get("closer"):
        lines.insert(
            2,
            f"{closer['recall']:.3f} where the teacher's boxes in parts of the frame are not false either "
            f"(threshold {closer['threshold']:.3f})",
        )
        thorough = document["thorough"]
        lines.insert(
            3,
            f"{thorough['recall']:.3f} of the {thorough['true_boxes']} that it finds in the frame or in its "
            f"parts (threshold {thorough['threshold']:.3f})",
        )
        mine, gentle = document["teacher_strict"], document["teacher_fair"]
        lines.append(
            f"the teacher itself in the parts, counted as the detector: {mine['recall']:.3f}, and "
            f"{gentle['recall']:.3f} where boxes on its other people are not false"
        )
    return "\n".join(lines)


def _save(args: argparse.Namespace, document: dict[str, Any]) -> None:
    """Recall and false rate into the bundle's accuracy, by precision and clip."""
    bundle = open_bundle(args.detector)
    if args.precision == "auto" or bundle.is_shipped:
        raise QanetError("this result cannot be saved", expected="--precision, and a bundle outside the package")
    card = bundle.manifest["accuracy"].setdefault(args.precision, {})
    part = "" if (args.start, args.end) == (0.0, 1.0) else f" {args.start:g}-{args.end:g}"
    card[f"{document['video']}{part}"] = {
        "frames": document["frames"],
        "teacher": document["teacher"],
        "teacher_boxes": document["teacher_boxes"],
        **{f"recall_{name}": round(document[name]["recall"], 4) for name in ("strict", "fair")},
        "false_per_frame": args.false_rate,
    }
    bundle.save()
    note(f"saved into {bundle.path}")


if __name__ == "__main__":
    run_module(main)
