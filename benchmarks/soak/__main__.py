"""`python -m qanet.benchmarks.soak CLIP`: the pipeline over a looped clip; exit code 1 when anything leaks."""

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from qanet.benchmarks.soak.looped import Looped
from qanet.benchmarks.soak.process import Reading, Watch, read_process
from qanet.benchmarks.soak.verdict import Limits, judge
from qanet.commandline import CommandParser, command_parser, emit, note, run_module
from qanet.errors import QanetError
from qanet.files import write_text
from qanet.runtime.detectors.choice import open_detector
from qanet.runtime.engines.select import DEVICES
from qanet.runtime.parser import Parser, load
from qanet.runtime.track.tracker import BYTE_SCORE
from qanet.runtime.video import pipeline
from qanet.runtime.video.outputs import open_sinks
from qanet.runtime.video.sources import open_source
from qanet.runtime.video.summary import Summary

_WARM_UP_FRAMES = 16  # run to the end before the books are opened: pools of threads are made on first use
_READINGS = 400


def _arguments() -> CommandParser:
    parser = command_parser("soak", "The video pipeline over thousands of frames of a looped clip.")
    parser.prog = "python -m qanet.benchmarks.soak"
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
        args.model, args.device, args.precision, detector=open_detector(args, BYTE_SCORE), threads=args.threads
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
    """So many frames to files that are thrown away."""
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
        f"({'-' if slope is None else f'{slope:+.2f}'} MiB a thousand), peak {document['peak_mib']:.0f} MiB",
        f"threads {three('threads')}, Python's {three('python_threads')}, open files {three('files')} "
        "(before -> most -> after)",
    ]
    lines += [f"broken: {line}" for line in document["broken"]] or ["every limit was kept"]
    return "\n".join(lines)


if __name__ == "__main__":
    run_module(main)
