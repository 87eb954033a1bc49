"""`qanet parse`: people of videos, images, cameras and streams, to overlays, JSON lines and label maps."""

import argparse
from collections.abc import Sequence
from typing import Any

from qanet.commandline import emit, note
from qanet.errors import QanetError
from qanet.runtime.cli import console
from qanet.runtime.cli.options import arguments
from qanet.runtime.cli.places import Place, check_overwrites, places
from qanet.runtime.cli.showing import live_page, viewed
from qanet.runtime.detectors.base import Detector
from qanet.runtime.faces.options import choose_model, detector_for
from qanet.runtime.parser import Parser, load
from qanet.runtime.serve.live import LivePage
from qanet.runtime.tracking.tracker import BYTE_SCORE
from qanet.runtime.video.frames import MOVING, FrameWork
from qanet.runtime.video.pipeline import run_streams
from qanet.runtime.video.sinks.open import open_sinks
from qanet.runtime.video.sources.base import Source
from qanet.runtime.video.sources.open import open_source
from qanet.runtime.video.stream import Stream
from qanet.runtime.video.summary import Summary


def main(argv: Sequence[str]) -> int:
    """Entry point; exit code 0, 2 where a stream broke off, or 130 after Ctrl-C."""
    args = arguments().parse_args(argv)
    bundle = choose_model(args, "ccp13-lite0")
    asked = places(args)
    _check_boxes(args, asked)
    sources = [open_source(place.input, args.decoder, args.input_size, args.input_rate) for place in asked]
    moving = _all_move(sources)
    settled = [place.settled(source.kind) for place, source in zip(asked, sources)]
    check_overwrites(settled, [args.boxes, args.detector])
    carry = not (args.no_carry or args.boxes or args.whole_image)
    least_score = BYTE_SCORE if moving and (carry or args.smooth) else None
    detector = detector_for(bundle, args, least_score)
    live = live_page(args, sources)
    sinks = [_sinks(args, place, source, live) for place, source in zip(settled, sources)]
    parser = load(
        args.model, args.device, args.precision, args.tail, detector, args.threads, flip=args.flip, scales=args.scales
    )
    shown = [viewed(args, some, parser.bundle.labels, source) for source, some in zip(sources, sinks)]
    streams = [Stream(source, _work(args, parser, source, carry), some) for source, some in zip(sources, shown)]
    about = {"model": parser.bundle.name, "runtime": parser.engine.runtime, "precision": parser.engine.precision}
    if live is not None:
        live.describe({**about, "detector": detector.name}, [[parser.times, stream.times] for stream in streams])
    with console.Progress(sources, args.quiet or (args.json and not args.progress)) as bar:
        summary = run_streams(streams, parser, lambda stream, frame, result: bar.update_people(len(result)))
    _warn(args, settled, summary, detector)
    document = console.document({**about, "detector": detector.name}, settled, summary)
    emit(args.json, document, console.text(document, settled, summary))
    return _exit_code(settled, summary)


def _check_boxes(args: argparse.Namespace, asked: list[Place]) -> None:
    if args.boxes and len({place.input for place in asked}) > 1:
        raise QanetError("--boxes belongs to one input", expected="a detector for several inputs", got=args.boxes)


def _all_move(sources: list[Source]) -> bool:
    """Whether all are videos or live; what a detector is asked for depends on it, so that they must not be mixed."""
    moving = {source.kind in MOVING for source in sources}
    if len(moving) > 1:
        kinds = ", ".join(sorted({source.kind for source in sources}))
        raise QanetError("still images and videos in one run", expected="a run for each", got=kinds)
    return moving.pop()


def _sinks(args: argparse.Namespace, place: Place, source: Source, live: LivePage | None) -> list[Any]:
    title = f"qanet parse: {place.name}"
    sinks = open_sinks(place.output, place.results, source.kind, source.fps, args.max_width, place.labels, title)
    return [*sinks, live.stream(place.name, source)] if live is not None else sinks


def _work(args: argparse.Namespace, parser: Parser, source: Source, carry: bool) -> FrameWork:
    cadence = _detect_every(args, carry)
    return FrameWork(parser, source.kind, cadence, carry, args.smooth, max(1, args.max_people))


def _detect_every(args: argparse.Namespace, carry: bool) -> int | None:
    """Frames between detections; None adapts them."""
    if not carry or (args.blur and args.detect_every is None):  # who has just come is hidden at once
        return 1
    return None if args.detect_every in (None, "auto") else max(1, args.detect_every)


def _warn(args: argparse.Namespace, settled: list[Place], summary: Summary, detector: Detector) -> None:
    """What was lost, a line each; with the stream's name where there are several."""
    if not summary.interrupted and (unused := getattr(detector, "unused", [])):
        names = ", ".join(unused[:3])
        summary.warnings.append(f"{args.boxes} has boxes for {len(unused)} frames that never came, such as {names}")
    for warning in summary.warnings:
        note(f"warning: {warning}")
    for place, part in zip(settled, summary.streams):
        for warning in part.warnings:
            note(f"warning: {place.name}: {warning}")


def _exit_code(settled: list[Place], summary: Summary) -> int:
    """130 after Ctrl-C, 2 where a stream broke off, and that is said last."""
    failed = [(place, part) for place, part in zip(settled, summary.streams) if part.error is not None]
    for place, part in failed:
        note(f"error: {place.name}: {part.error}")
    if summary.interrupted:
        return 130
    return 2 if failed else 0
