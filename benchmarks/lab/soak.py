"""Endurance of the video pipeline: does memory, a thread or a file leak over thousands of frames of a looped clip?

    python -m qanet.benchmarks.lab.soak clip.mp4 --frames 20000

Exit code 1 when a limit is broken.
"""

import argparse
import json
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from qanet.commandline import CommandParser, command_parser, emit, note, run_module
from qanet.errors import QanetError
from qanet.files import write_text
from qanet.runtime.backends.select import DEVICES
from qanet.runtime.detectors.open import open_detector
from qanet.runtime.parser import Parser, load
from qanet.runtime.track.tracker import BYTE_SCORE
from qanet.runtime.video import pipeline
from qanet.runtime.video.frame import Frame, Source
from qanet.runtime.video.outputs import open_sinks
from qanet.runtime.video.sources import open_source
from qanet.runtime.video.summary import Summary

_PROC = Path("/proc/self")
_LEAST_READINGS = 4  # two at each end, or there is no growth to speak of
_WARM_UP_FRAMES = 16  # before the first reading: pools of threads are made on first use
_READINGS = 400


@dataclass(frozen=True)
class Reading:
    """The state of this process after so many frames.

    Attributes:
        threads: of the operating system, the pools of OpenVINO and OpenCV included.
        python_threads: those that Python started, which are the pipeline's.
    """

    frame: int
    rss_mib: float
    threads: int
    python_threads: int
    files: int


def read_process(frame: int, proc: Path = _PROC) -> Reading:
    """Read /proc for this process.

    Raises:
        QanetError: the system has no /proc.
    """
    try:
        lines = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines() if ":" in line)
        rss_mib = int(lines["VmRSS"].split()[0]) / 1024
        files = sum(1 for _ in (proc / "fd").iterdir())
        return Reading(frame, rss_mib, int(lines["Threads"]), threading.active_count(), files)
    except (OSError, KeyError, ValueError) as error:
        raise QanetError("memory cannot be watched here", expected="Linux's /proc", got=f"no {error}") from error


class Watch:
    """Collects a reading every `every` frames."""

    def __init__(self, every: int):
        self.every = every
        self.readings: list[Reading] = []

    def __call__(self, frames: int) -> None:
        """`frames` are done."""
        if frames % self.every == 0:
            self.readings.append(read_process(frames))


class Looped:
    """A source that repeats a clip and opens it anew for every turn, so that a handle that stays open is found.

    Args:
        open_clip: opens the clip.
        frames: in all.
    """

    def __init__(self, open_clip: Callable[[], Source], frames: int):
        self._open, self._frames = open_clip, frames
        first = open_clip()
        self.kind, self.fps, self.warnings = first.kind, first.fps, list[str]()
        self.expected_frames = frames
        self.turns = 0

    def __iter__(self) -> Iterator[Frame]:
        given = 0
        while given < self._frames:
            before = given
            frames: Any = iter(self._open())
            self.turns += 1
            with closing(frames):
                for frame in frames:
                    yield replace(frame, index=given, name=str(given))
                    given += 1
                    if given == self._frames:
                        return
            if given == before:
                raise QanetError("the clip has no frame", expected="one or more per turn", got=f"turn {self.turns}")


@dataclass(frozen=True)
class Limits:
    """What a soak must keep.

    Attributes:
        growth_mib: of the resident memory, from the first frames after `settle` to the last ones.
        peak_mib: of the resident memory at any reading; None: not limited.
        settle: frames before memory is compared: pools fill, tracks begin.
    """

    growth_mib: float = 10.0
    peak_mib: float | None = 500.0
    settle: int = 500


def growth_mib(readings: Sequence[Reading], settle: int) -> float | None:
    """How much more memory the last tenth of the readings holds than the first tenth after `settle` frames.

    Medians of both: a frame in a queue is megabytes, and the number of queued frames varies. None for fewer than four
    readings.
    """
    rss = np.array([reading.rss_mib for reading in readings if reading.frame >= settle])
    if len(rss) < _LEAST_READINGS:
        return None
    tenth = max(2, len(rss) // 10)
    return float(np.median(rss[-tenth:]) - np.median(rss[:tenth]))


def judge(before: Reading, readings: Sequence[Reading], after: Reading, limits: Limits) -> dict[str, Any]:
    """Figures, and a sentence for each limit that is broken.

    Args:
        before, after: without a running pipeline, when everything is loaded and warm, and at the end.
        readings: while it ran.
    Returns:
        growth_mib, peak_mib, mib_per_1000_frames (slope of the line through all readings after `settle`), threads and
        files before, at most and after, broken: a sentence per broken limit.
    """
    growth = growth_mib(readings, limits.settle)
    peak = max(reading.rss_mib for reading in (before, *readings, after))
    figures: dict[str, Any] = {
        "growth_mib": growth,
        "peak_mib": peak,
        "mib_per_1000_frames": _slope(readings, limits.settle),
        **{
            name: {
                "before": getattr(before, name),
                "most": max(getattr(r, name) for r in (before, *readings, after)),
                "after": getattr(after, name),
            }
            for name in ("threads", "python_threads", "files")
        },
    }
    broken = []
    if growth is None:
        broken.append(f"fewer than {_LEAST_READINGS} readings after {limits.settle} frames: growth was not measured")
    elif growth > limits.growth_mib:
        broken.append(f"memory grew by {growth:.1f} MiB, above {limits.growth_mib:g}")
    if limits.peak_mib is not None and peak > limits.peak_mib:
        broken.append(f"resident memory reached {peak:.0f} MiB, above {limits.peak_mib:g}")
    for name, what in (("python_threads", "threads of the pipeline"), ("threads", "threads"), ("files", "open files")):
        left = getattr(after, name) - getattr(before, name)
        if left > 0:
            broken.append(f"{what} left behind: {left}")
    return figures | {"broken": broken}


def _slope(readings: Sequence[Reading], settle: int) -> float | None:
    chosen = [reading for reading in readings if reading.frame >= settle]
    if len(chosen) < _LEAST_READINGS:
        return None
    frames = np.array([reading.frame for reading in chosen], np.float64)
    rss = np.array([reading.rss_mib for reading in chosen])
    return float(np.polyfit(frames, rss, 1)[0] * 1000)


def _arguments() -> CommandParser:
    parser = command_parser("soak", "The video pipeline over thousands of frames of a looped clip.")
    parser.prog = "python -m qanet.benchmarks.lab.soak"
    parser.add_argument("input", metavar="CLIP", help="a video; it starts again when it ends")
    parser.add_argument("--model", default="ccp13-lite0", help="bundle: a shipped name or a NAME.qanet folder")
    people = parser.add_mutually_exclusive_group()
    people.add_argument("--detector", metavar="ONNX", help="person detector of a known form; default: as qanet parse")
    people.add_argument("--boxes", metavar="JSON", help="boxes from a file instead of a detector")
    people.add_argument("--whole-image", action="store_true", help="one person who fills the image")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--device", default="auto", choices=DEVICES)
    parser.add_argument("--threads", type=int, help="CPU threads of the engine")
    parser.add_argument("--overlay", action="store_true", help="draw and encode a video too")
    parser.add_argument("--frames", type=int, default=20_000, metavar="N", help="frames in all (20000)")
    parser.add_argument("--settle", type=int, default=Limits.settle, metavar="N", help="frames before memory counts")
    parser.add_argument("--growth-mib", type=float, default=Limits.growth_mib, metavar="MIB", help="limit of growth")
    parser.add_argument("--peak-mib", type=float, default=Limits.peak_mib, metavar="MIB", help="limit; 0: none")
    parser.add_argument("--output", metavar="JSON", help="the document with every reading, written as it goes")
    return parser


def _check(args: argparse.Namespace) -> None:
    if args.frames < 2:
        raise QanetError("bad --frames", expected="2 or more", got=args.frames)
    if not 0 <= args.settle < args.frames:
        raise QanetError("bad --settle", expected=f"0 to {args.frames - 1} frames", got=args.settle)
    for name in ("growth_mib", "peak_mib"):
        if not 0 <= getattr(args, name) < float("inf"):
            raise QanetError(f"bad --{name.replace('_', '-')}", expected="0 or more", got=getattr(args, name))


def main(argv: Sequence[str]) -> int:
    """Entry point; exit code 0, 1 when a limit is broken, 130 after Ctrl-C."""
    args = _arguments().parse_args(argv)
    _check(args)
    parser = load(
        args.model,
        args.device,
        args.precision,
        detector=open_detector(
            args.detector,
            boxes=args.boxes,
            whole_image=args.whole_image,
            threads=args.threads,
            score_threshold=BYTE_SCORE,
        ),
        threads=args.threads,
    )
    _run(args, parser, min(_WARM_UP_FRAMES, args.frames), None)
    before = read_process(0)
    watch = Watch(max(1, args.frames // _READINGS))
    summary = _run(args, parser, args.frames, watch)
    after = read_process(summary.frames)
    limits = Limits(args.growth_mib, args.peak_mib or None, args.settle)
    document = _document(args, summary, judge(before, watch.readings, after, limits), watch.readings)
    if args.output:
        write_text(Path(args.output), json.dumps(document, indent=1) + "\n")
    emit(args.json, document, _text(document))
    return 130 if summary.interrupted else 1 if document["broken"] else 0


def _run(args: argparse.Namespace, parser: Parser, frames: int, watch: Watch | None) -> Summary:
    """Parse so many frames into temporary files."""
    done = 0

    def count(*_: object) -> None:
        nonlocal done
        done += 1
        if watch is not None:
            watch(done)
            if done % (watch.every * 20) == 0:
                last = watch.readings[-1]
                note(f"{done} frames: {last.rss_mib:.1f} MiB, {last.threads} threads, {last.files} files")

    with tempfile.TemporaryDirectory() as folder:
        source = Looped(lambda: open_source(args.input), frames)
        overlay = str(Path(folder) / "parsed.webm") if args.overlay else None
        sinks = open_sinks(overlay, str(Path(folder) / "results.jsonl"), source.kind, source.fps)
        carry = not (args.boxes or args.whole_image)
        return pipeline.run(source, parser, sinks, detect_every=None if carry else 1, carry=carry, on_frame=count)


def _document(
    args: argparse.Namespace, summary: Summary, verdict: dict[str, Any], readings: Sequence[Reading]
) -> dict[str, Any]:
    facts = summary.to_json()
    kept = ("frames", "people", "seconds", "frames_per_second", "interrupted", "skipped", "detections", "stages_ms")
    return {
        "clip": Path(args.input).name,
        "settle": args.settle,
        **{key: facts[key] for key in kept},
        **verdict,
        "readings": [asdict(reading) for reading in readings],
    }


def _text(document: dict[str, Any]) -> str:
    def three(name: str) -> str:
        return " -> ".join(f"{document[name][when]}" for when in ("before", "most", "after"))

    growth, slope = document["growth_mib"], document["mib_per_1000_frames"]
    lines = [
        f"{document['frames']} frames of {document['clip']} in {document['seconds']:.0f} s "
        f"({document['frames_per_second']} frames/s), {document['people']} people",
        f"resident memory: growth {'-' if growth is None else f'{growth:+.1f}'} MiB after {document['settle']} frames "
        f"({'-' if slope is None else f'{slope:+.2f}'} MiB per 1000), peak {document['peak_mib']:.0f} MiB",
        f"threads {three('threads')}, Python's {three('python_threads')}, open files {three('files')} "
        "(before -> most -> after)",
    ]
    lines += [f"broken: {line}" for line in document["broken"]] or ["every limit was kept"]
    return "\n".join(lines)


if __name__ == "__main__":
    run_module(main)
