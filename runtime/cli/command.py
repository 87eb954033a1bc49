"""`qanet parse`: people of videos, images, cameras and streams, to overlays, JSON lines and label maps."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qanet.bundle import Bundle
from qanet.bundle.bundle import SUFFIX
from qanet.commandline import emit, note, table
from qanet.errors import QanetError
from qanet.labels import LabelSet
from qanet.runtime.cli.io_plan import StreamSpec, check_overwrites, stream_specs
from qanet.runtime.cli.options import arguments
from qanet.runtime.detectors.base import Detector
from qanet.runtime.faces.options import choose_model, detector_for
from qanet.runtime.ladder import first_frames, pick_rung
from qanet.runtime.parser import load
from qanet.runtime.serve.live_page import LivePage
from qanet.runtime.track.tracker import BYTE_SCORE
from qanet.runtime.video.frame import Source
from qanet.runtime.video.outputs import FilteredSink, open_sinks, part_ids
from qanet.runtime.video.pipeline import run_streams
from qanet.runtime.video.privacy import Privacy
from qanet.runtime.video.sinks import Sink
from qanet.runtime.video.sources import open_source
from qanet.runtime.video.stream import MOVING, FrameWork, Stream
from qanet.runtime.video.summary import Summary

_LOST = ("dropped", "skipped", "reconnects")


def main(argv: Sequence[str]) -> int:
    """Entry point; exit code 0, 2 if a stream failed, or 130 after Ctrl-C."""
    args = arguments().parse_args(argv)
    if args.target_fps and (args.model != "ccp13-lite0" or args.recipe):
        raise QanetError("--target-fps chooses the model", expected="no --model or --recipe beside it", got=args.model)
    bundle = choose_model(args, "ccp13-lite0")
    specs = stream_specs(args.input, args.more, args.streams, args.output_dir, args.results, args.labels)
    if args.boxes and len({spec.input for spec in specs}) > 1:
        raise QanetError("--boxes belongs to one input", expected="a detector for several inputs", got=args.boxes)
    sources = [open_source(spec.input, args.decoder, args.input_size, args.input_rate) for spec in specs]
    moving = _all_move(sources)
    specs = [spec.with_outputs(source.kind) for spec, source in zip(specs, sources)]
    check_overwrites(specs, sources, [args.boxes, args.detector, args.face_detector], _bundles(args, bundle))
    carry = not (args.no_carry or args.boxes or args.whole_image)
    least_score = BYTE_SCORE if moving and (carry or args.smooth) else None
    detector = detector_for(bundle, args, least_score)
    if args.target_fps:
        _pick_model(args, sources, [spec.input for spec in specs], detector)
    page = _live_page(args, sources)
    sinks = []
    for spec, source in zip(specs, sources):
        title = f"qanet parse: {spec.name}"
        opened = open_sinks(spec.output, spec.results, source.kind, source.fps, args.max_width, spec.labels, title)
        sinks.append([*opened, page.stream(spec.name, source)] if page is not None else opened)
    parser = load(
        args.model, args.device, args.precision, args.tail, detector, args.threads, flip=args.flip, scales=args.scales
    )
    cadence = _detect_every(args, carry)
    streams = []
    for source, opened in zip(sources, sinks):
        work = FrameWork(parser, source.kind, cadence, carry, args.smooth, max(1, args.max_people))
        streams.append(Stream(source, work, _filtered(args, opened, parser.bundle.labels, source)))
    about = {"model": parser.bundle.name, "runtime": parser.engine.runtime, "precision": parser.engine.precision}
    about["detector"] = detector.name
    if page is not None:
        page.describe(about, [[parser.times, stream.times] for stream in streams])
    with Progress(sources, args.quiet or (args.json and not args.progress)) as bar:
        summary = run_streams(streams, parser, lambda stream, frame, result: bar.update_people(len(result)))
    _warn(args, specs, summary, detector)
    report = _report(about, specs, summary)
    emit(args.json, report, _text(report, specs, summary), args.results)
    return _exit_code(specs, summary)


def _bundles(args: argparse.Namespace, bundle: Bundle) -> list[Path]:
    """The folders of the model and the detectors."""
    named = [Path(name + end) for name in (args.detector, args.head_model) if name for end in ("", SUFFIX)]
    return [bundle.path, *(path for path in named if path.is_dir())]


def _pick_model(args: argparse.Namespace, sources: list[Source], uris: list[str], detector: Detector) -> None:
    """Set args.model to the rung that keeps up with all inputs, and say which."""
    frames = first_frames(sources, uris)
    options = {"device": args.device, "precision": args.precision, "tail": args.tail, "threads": args.threads}
    pick = pick_rung(frames, detector, args.target_fps * len(sources), **options)
    args.model = pick.rung
    note(str(pick))


def _all_move(sources: list[Source]) -> bool:
    """Whether all inputs are videos or live; they must not be mixed with still images, which share the detector."""
    moving = {source.kind in MOVING for source in sources}
    if len(moving) > 1:
        kinds = ", ".join(sorted({source.kind for source in sources}))
        raise QanetError("still images and videos in one run", expected="one run for each kind", got=kinds)
    return moving.pop()


def _detect_every(args: argparse.Namespace, carry: bool) -> int | None:
    """Frames between detections; None adapts them."""
    if not carry or (args.blur and args.detect_every is None):  # --blur must hide a new person at once
        return 1
    return None if args.detect_every in (None, "auto") else max(1, args.detect_every)


def _live_page(args: argparse.Namespace, sources: list[Source]) -> LivePage | None:
    """The live page of --serve."""
    if args.serve is None:
        return None
    if any(source.kind == "image" for source in sources):
        raise QanetError(
            "--serve cannot show a single image: the run ends at once",
            expected="a video, a folder or a live source",
            got="an image",
            next_command="qanet parse INPUT.jpg OUTPUT.png",
        )
    return LivePage(args.serve, args.max_width)


def _filtered(args: argparse.Namespace, sinks: list[Sink], labels: LabelSet, source: Source) -> list[Sink]:
    """The sinks of a stream behind --blur, --only and --keep-background; QanetError for an unknown part."""
    only = part_ids(args.only, labels)
    if not (args.blur or only or args.keep_background or args.min_quality):
        return sinks
    privacy = Privacy(args.blur, source.kind in MOVING) if args.blur else None
    return [FilteredSink(sinks, privacy, only, args.keep_background, args.min_quality)]


class Progress:
    """tqdm with the number of people, and of dropped frames if there are any; silent when quiet."""

    def __init__(self, sources: list[Source], quiet: bool):
        from tqdm import tqdm

        self._sources = sources
        expected = [source.expected_frames for source in sources]
        total = sum(expected) if all(expected) else None
        self._bar = tqdm(total=total, unit="frame", disable=quiet or None, desc="parse")

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def update_people(self, count: int) -> None:
        """Count one more frame, which has `count` people."""
        dropped = sum(getattr(source, "dropped", 0) for source in self._sources)
        self._bar.set_postfix(people=count, **({"dropped": dropped} if dropped else {}), refresh=False)
        self._bar.update()


def _warn(args: argparse.Namespace, specs: list[StreamSpec], summary: Summary, detector: Detector) -> None:
    """Print the warnings, one line each."""
    if not summary.interrupted and (unused := getattr(detector, "unused", [])):
        names = ", ".join(unused[:3])
        summary.warnings.append(f"{args.boxes} has boxes for {len(unused)} frames that never came, such as {names}")
    for warning in summary.warnings:
        note(f"warning: {warning}")
    for spec, part in zip(specs, summary.streams):
        for warning in part.warnings:
            note(f"warning: {spec.name}: {warning}")


def _exit_code(specs: list[StreamSpec], summary: Summary) -> int:
    """130 after Ctrl-C; 2 if a stream failed, whose error is printed last."""
    failed = [(spec, part) for spec, part in zip(specs, summary.streams) if part.error is not None]
    for spec, part in failed:
        note(f"error: {spec.name}: {part.error}")
    if summary.interrupted:
        return 130
    return 2 if failed else 0


def _report(about: dict[str, Any], specs: list[StreamSpec], summary: Summary) -> dict[str, Any]:
    """The JSON document of --json: `about` the model, the totals, and each stream if there are several."""
    if not summary.streams:
        return {"input": specs[0].input, **about, **summary.to_json(), **_outputs(specs[0])}
    total = summary.to_json()
    for name in ("people_by_frame", "decoder", "error", "warnings"):  # these belong to one stream
        del total[name]
    streams = [
        {"name": spec.name, "input": spec.input, **part.to_json(), **_outputs(spec)}
        for spec, part in zip(specs, summary.streams)
    ]
    return {**about, **total, "streams": streams}


def _outputs(spec: StreamSpec) -> dict[str, str | None]:
    return {"output": spec.output, "results": spec.results, "labels": spec.labels}


def _text(report: dict[str, Any], specs: list[StreamSpec], summary: Summary) -> str:
    """The report as text."""
    people = summary.people / max(summary.frames, 1)
    streams = f" of {len(summary.streams)} streams" if summary.streams else ""
    lines = [
        f"{summary.frames} frames{streams}, {people:.2f} people per frame, {report['frames_per_second']} frames/s "
        f"({report['model']} {report['precision']} on {report['runtime']}, detector: {report['detector']})"
    ]
    for spec, part in zip(specs, summary.streams or [summary]):
        if part.error is None:
            lines += [f"wrote {path}" for path in _outputs(spec).values() if path]
    if summary.streams:
        lines.append(_stream_table(specs, summary))
    elif lost := ", ".join(f"{name}: {getattr(summary, name)}" for name in _LOST if getattr(summary, name)):
        lines.append(lost)
    decoder = report.get("decoder") or {}
    if decoder.get("frame_ms"):
        times = ", ".join(f"{name} {ms:.3g} ms per frame" for name, ms in decoder["frame_ms"].items())
        lines.append(f"decoded by {decoder['name']} ({times})")
    stages = [(name, s["p50"], s["p90"], s["p99"], s["n"]) for name, s in report["stages_ms"].items()]
    if stages:
        lines.append(table(stages, ("stage", "p50 ms", "p90 ms", "p99 ms", "samples")))
    if summary.interrupted:
        lines.append("interrupted: what was parsed so far is kept")
    return "\n".join(lines)


def _stream_table(specs: list[StreamSpec], summary: Summary) -> str:
    header = ("stream", "frames", "people per frame", "frames/s", "p50 ms", "p99 ms", *_LOST, "end")
    rows = []
    for spec, part in zip(specs, summary.streams):
        document = part.to_json()
        frame_ms = document["stages_ms"].get("frame", {"p50": 0.0, "p99": 0.0})
        rows.append(
            (
                spec.name,
                part.frames,
                round(part.people / max(part.frames, 1), 2),
                document["frames_per_second"],
                frame_ms["p50"],
                frame_ms["p99"],
                *(getattr(part, name) for name in _LOST),
                "error" if part.error else "",
            )
        )
    return table(rows, header)
