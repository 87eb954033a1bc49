"""`qanet parse`: people of a video, an image or a folder, to an overlay and to JSON lines."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from qanet.cli.commandline import command_parser, emit, note, table
from qanet.errors import QanetError
from qanet.runtime.detectors.base import Detector
from qanet.runtime.engines.select import DEVICES
from qanet.runtime.parser import TAILS, load
from qanet.runtime.tracking.tracker import BYTE_SCORE
from qanet.runtime.video.frames import MAX_PEOPLE, MOVING
from qanet.runtime.video.pipeline import run
from qanet.runtime.video.sink import open_sinks
from qanet.runtime.video.source import Source, open_source
from qanet.runtime.video.summary import Summary


def _arguments() -> argparse.ArgumentParser:
    parser = command_parser("parse", "Parse the people of a video, an image or a folder of images.")
    parser.add_argument(
        "input", metavar="INPUT_URI", help="a video, an image, a folder of images, /dev/video0, rtsp://..."
    )
    parser.add_argument("output", metavar="OUTPUT_URI", nargs="?", help="overlay: .webm/.mp4/.avi, a folder, or .png")
    parser.add_argument("--model", default="ccp13-lite0", help="bundle: a shipped name or a NAME.qanet folder")
    people = parser.add_mutually_exclusive_group()
    people.add_argument("--detector", metavar="ONNX", help="person detector of a known form; default: OpenCV's HOG")
    people.add_argument("--boxes", metavar="JSON", help="boxes from a file instead of a detector")
    people.add_argument("--whole-image", action="store_true", help="one person who fills the image")
    parser.add_argument("--results", metavar="JSONL", help="a line of JSON a frame: boxes, scores, RLE of the parts")
    parser.add_argument("--precision", default="auto", help="fp32, fp16, int8; auto: the fastest the bundle has")
    parser.add_argument("--device", default="auto", choices=DEVICES)
    parser.add_argument("--tail", default="kernel", choices=TAILS, help="labels at image or at crop resolution")
    parser.add_argument("--flip", action="store_true", help="average each crop with its mirror image")
    parser.add_argument("--scales", type=_numbers, default=(1.0,), metavar="1,1.1", help="average boxes of these sizes")
    parser.add_argument(
        "--detect-every",
        type=_cadence,
        metavar="K",
        help="detect on every K-th frame, or auto: seldom while nothing is new",
    )
    parser.add_argument("--no-carry", action="store_true", help="do not look for the last frame's people again")
    parser.add_argument("--smooth", action="store_true", help="hold labels of a video that flicker where nothing moves")
    parser.add_argument("--max-people", type=_count, default=MAX_PEOPLE, metavar="N", help="of a frame, best by score")
    parser.add_argument(
        "--max-width", type=_count, default=0, metavar="PX", help="shrink the overlay video to this width"
    )
    parser.add_argument("--threads", type=_count, help="CPU threads of the engine")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.add_argument("--progress", action="store_true", help="a progress bar even with --json")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}")
    return int(text)


def _cadence(text: str) -> int | str:
    return text if text == "auto" else _count(text)


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected numbers separated by commas, got {text!r}") from None


def _check_overwrites(args: argparse.Namespace) -> None:
    """QanetError when what is written would replace what is read, or one output the other."""
    read = {Path(p).resolve(): p for p in (args.input.removeprefix("file://"), args.boxes, args.detector) if p}
    written = [Path(p).resolve() for p in (args.output, args.results) if p]
    for path in written:
        if path in read:
            raise QanetError(
                f"{path.name} would be overwritten", expected="an output other than the input", got=read[path]
            )
    if len(written) != len(set(written)):
        raise QanetError("OUTPUT_URI and --results are one file", expected="two names", got=args.output)


def open_detector(args: argparse.Namespace, score_threshold: float | None = None) -> Detector:
    """The detector that the arguments ask for; QanetError where it cannot be had.

    Args:
        score_threshold: people of less are not given by an ONNX detector; None: its default.
    """
    if args.whole_image:
        from qanet.runtime.detectors.fixed import WholeImage

        return WholeImage()
    if args.boxes:
        from qanet.runtime.detectors.fixed import BoxesFile

        return BoxesFile(Path(args.boxes))
    if args.detector:
        from qanet.runtime.detectors.onnx import SCORE_THRESHOLD, OnnxDetector

        return OnnxDetector(Path(args.detector), score_threshold or SCORE_THRESHOLD, args.threads)
    from qanet.runtime.detectors.hog import HogDetector

    note("note: people are found by OpenCV's HOG detector; --detector yolox_nano.onnx finds more of them")
    return HogDetector()


def main(argv: Sequence[str]) -> int:
    """Entry point; exit code 0, or 130 after Ctrl-C."""
    args = _arguments().parse_args(argv)
    _check_overwrites(args)
    source = open_source(args.input)
    carry = not (args.no_carry or args.boxes or args.whole_image)
    tracked = source.kind in MOVING and (carry or args.smooth)
    detector = open_detector(args, BYTE_SCORE if tracked else None)
    sinks = open_sinks(args.output, args.results, source.kind, source.fps, args.max_width)
    parser = load(
        args.model, args.device, args.precision, args.tail, detector, args.threads, flip=args.flip, scales=args.scales
    )
    with _Progress(source, args.quiet or (args.json and not args.progress)) as bar:
        summary = run(
            source, parser, sinks, detect_every=_detect_every(args, carry), carry=carry, smooth=args.smooth,
            on_frame=lambda frame, result: bar.update_people(len(result)), max_people=max(1, args.max_people),
        )  # fmt: skip
    if not summary.interrupted and (unused := getattr(detector, "unused", [])):
        names = ", ".join(unused[:3])
        summary.warnings.append(f"{args.boxes} has boxes for {len(unused)} frames that never came, such as {names}")
    for warning in summary.warnings:
        note(f"warning: {warning}")
    document = {"input": args.input, "model": parser.bundle.name, "runtime": parser.engine.runtime}
    document |= {"precision": parser.engine.precision, "detector": detector.name, **summary.to_json()}
    document |= {"output": args.output, "results": args.results}
    emit(args.json, document, _text(document, summary))
    return 130 if summary.interrupted else 0


def _detect_every(args: argparse.Namespace, carry: bool) -> int | None:
    """Frames between detections; None adapts them."""
    if not carry:
        return 1
    if args.detect_every is None:  # HOG misses people so often that every frame of it would be a surprise
        return None if args.detector else 3
    return None if args.detect_every == "auto" else max(1, args.detect_every)


class _Progress:
    """tqdm with the number of people, and of dropped frames where there are any; or nothing when quiet."""

    def __init__(self, source: Source, quiet: bool):
        from tqdm import tqdm

        self._source = source
        self._bar = tqdm(total=source.expected_frames or None, unit="frame", disable=quiet or None, desc="parse")

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def update_people(self, count: int) -> None:
        """One frame done, with so many people."""
        dropped = getattr(self._source, "dropped", 0)
        self._bar.set_postfix(people=count, **({"dropped": dropped} if dropped else {}), refresh=False)
        self._bar.update()


def _text(document: dict, summary: Summary) -> str:
    stages = document["stages_ms"]
    rows = [(name, s["p50"], s["p90"], s["p99"], s["n"]) for name, s in stages.items()]
    people = summary.people / max(summary.frames, 1)
    head = (
        f"{summary.frames} frames, {people:.2f} people a frame, {document['frames_per_second']} frames/s "
        f"({document['model']} {document['precision']} on {document['runtime']}, detector: {document['detector']})"
    )
    written = [f"wrote {path}" for path in (document["output"], document["results"]) if path]
    parts = [head, *written]
    lost = {"dropped": summary.dropped, "skipped": summary.skipped, "reconnects": summary.reconnects}
    if any(lost.values()):
        parts.append(", ".join(f"{name}: {count}" for name, count in lost.items() if count))
    if rows:
        parts.append(table(rows, ("stage", "p50 ms", "p90 ms", "p99 ms", "samples")))
    if summary.interrupted:
        parts.append("interrupted: what was parsed so far is kept")
    return "\n".join(parts)
