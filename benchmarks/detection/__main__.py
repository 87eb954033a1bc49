"""`python -m qanet.benchmarks.detection`: a person detector against its teacher on a video, or on a part of it.

python -m qanet.benchmarks.detection person-lite0 --video clip.mp4 --teacher yolox_nano.onnx --from 0.667
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.benchmarks.detection.measure import Question, compare, report
from qanet.bundle import PRECISIONS, open_bundle
from qanet.commandline import CommandParser, emit, note, run_module
from qanet.errors import QanetError
from qanet.runtime.detectors.base import Detector
from qanet.runtime.detectors.onnx import OnnxDetector
from qanet.runtime.detectors.person import SCORE_THRESHOLD, PersonDetector, names_a_bundle
from qanet.runtime.video.sources import open_source

_LEAST_SCORE = 0.05  # of the boxes that thresholds are searched among
_TEACHER_LEAST_SCORE = 0.1  # what a teacher is less sure of is nobody


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
    parser = CommandParser(prog="python -m qanet.benchmarks.detection", description=__doc__.split("\n")[0])
    parser.add_argument("detector", metavar="DETECTOR", help="a bundle, an ONNX detector, or hog")
    parser.add_argument("--video", required=True)
    parser.add_argument("--teacher", required=True, metavar="ONNX")
    parser.add_argument("--from", dest="start", type=float, default=0.0, metavar="SHARE", help="0.667: the last third")
    parser.add_argument("--to", dest="end", type=float, default=1.0, metavar="SHARE")
    parser.add_argument("--every", type=int, default=1, metavar="K", help="every K-th frame")
    parser.add_argument("--false-rate", type=float, default=0.1, help="false boxes a frame that are allowed (0.1)")
    parser.add_argument("--iou", type=float, default=0.5)
    parser.add_argument("--least-score", type=float, default=0.5, help="of the teacher's boxes to be found (0.5)")
    parser.add_argument("--least-height", type=float, default=60.0, metavar="PX", help="of those boxes (60)")
    parser.add_argument("--closer", action="store_true", help="the teacher looks at parts of each frame too: slow")
    parser.add_argument("--precision", default="auto", choices=("auto", *PRECISIONS), help="of a bundle")
    parser.add_argument("--threads", type=int, help="CPU threads of each detector")
    parser.add_argument("--save", action="store_true", help="add the result to the bundle's accuracy")
    parser.add_argument("--json", action="store_true")
    return parser


def _detector(args: argparse.Namespace) -> Detector:
    if args.detector == "hog":
        from qanet.runtime.detectors.hog import HogDetector

        return HogDetector()
    if names_a_bundle(args.detector):
        return PersonDetector(args.detector, _LEAST_SCORE, "cpu", args.precision, args.threads)
    return OnnxDetector(Path(args.detector), _LEAST_SCORE, args.threads)


def _frames(video: str, start: float, end: float, every: int) -> Iterator[NDArray[np.uint8]]:
    source = open_source(video)
    count = source.expected_frames
    if not count and (start, end) != (0.0, 1.0):
        raise QanetError(f"{video} does not tell its length", expected="a file, for a part of it", got="a stream")
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
        f"recall {strict['recall']:.3f} at {question['false_per_frame']:g} false boxes a frame "
        f"(threshold {strict['threshold']:.3f}); {fair['recall']:.3f} where boxes on the teacher's other people are "
        f"not false (threshold {fair['threshold']:.3f})",
        f"at threshold {usual['threshold']:g}: recall {usual['recall']:.3f}, {usual['false_per_image']:.3f} false "
        f"boxes a frame; {document['milliseconds']['p50']:.1f} ms a frame (median), letterbox and suppression included",
    ]
    if closer := document.get("closer"):
        lines.insert(
            2,
            f"{closer['recall']:.3f} where what the teacher sees in parts of the frame is not false either "
            f"(threshold {closer['threshold']:.3f})",
        )
        thorough = document["thorough"]
        lines.insert(
            3,
            f"{thorough['recall']:.3f} of the {thorough['true_boxes']} that it sees in the frame or in its "
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
