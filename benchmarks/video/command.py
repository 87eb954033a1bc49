"""`qanet benchmark --video CLIP`: a clip from file to results, run after run."""

import argparse
from pathlib import Path
from typing import Any

from qanet.benchmarks import machine
from qanet.benchmarks.harness.memory import PeakMemory
from qanet.benchmarks.video.first_result import first_result
from qanet.benchmarks.video.measure import Run, figures, run_once, warm_up
from qanet.benchmarks.video.networks import NetworkClock, start_other_pools
from qanet.commandline import emit, note, table
from qanet.errors import QanetError
from qanet.runtime.detectors.choice import open_detector
from qanet.runtime.parser import Parser, load
from qanet.runtime.track.tracker import BYTE_SCORE
from qanet.runtime.video.sources import open_source

DEFAULT_MODEL = "ccp13-lite0"
_ROUNDS = 3


def run_video(args: argparse.Namespace) -> int:
    """Entry point; exit code 0, or 130 after Ctrl-C."""
    model, precision, device, tail = _single(args)
    carry = not (args.boxes or args.whole_image)
    facts = machine.describe()
    first = next(iter(open_source(args.video)), None)
    if first is None:
        raise QanetError(f"{args.video} has no frame", expected="a video", got="nothing to parse")
    start_other_pools()
    opened: list[Parser] = []

    def open_networks() -> None:
        detector = open_detector(args, BYTE_SCORE if carry else None)
        opened.append(load(model, device, precision, tail, detector, args.threads))
        warm_up(opened[0], first)

    clock, runs = NetworkClock(open_networks), list[Run]()
    parser = opened[0]
    for number in range(args.rounds or _ROUNDS):
        run = run_once(open_source(args.video), parser, clock, None if carry else 1, carry)
        if run.summary.interrupted:
            return 130
        note(f"run {number + 1}: {run.summary.frames / run.summary.seconds:.1f} frames/s")
        runs.append(run)
    peak_mib = PeakMemory().peak_mib()
    again = [args.video, "--model", model, "--precision", precision, "--device", device, "--tail", tail]
    again += ["--threads", str(args.threads)] if args.threads else []
    again += next(
        ([f"--{name}", value] for name in ("detector", "boxes") if (value := getattr(args, name))),
        ["--whole-image"] if args.whole_image else [],
    )
    document = {
        "video": Path(args.video).name,
        "model": parser.bundle.name,
        "precision": parser.engine.precision,
        "runtime": parser.engine.runtime,
        "detector": parser.detector.name if parser.detector else None,
        "threads": args.threads,
        "machine": facts,
        **figures(runs),
        "peak_rss_mib": peak_mib,
        "first_result": first_result(again, args.cold_starts or _ROUNDS),
        "warnings": [line for line in (machine.busy_warning(facts),) if line],
    }
    emit(args.json, document, _text(document))
    return 0


def _single(args: argparse.Namespace) -> tuple[str, str, str, str]:
    """Model, precision, device and tail: one of each."""
    chosen = []
    for name, default in (("models", DEFAULT_MODEL), ("precision", "auto"), ("device", "auto"), ("tail", "kernel")):
        values = getattr(args, name) or [default]
        if len(values) > 1:
            raise QanetError(f"--video takes one of {name}", expected="one", got=", ".join(values))
        chosen.append(values[0])
    return chosen[0], chosen[1], chosen[2], chosen[3]


def _text(document: dict[str, Any]) -> str:
    rate, cpu = document["frames_per_second"], document["cpu_ms_per_frame"]
    share, first = document["networks_share"]["median"], document["first_result"]
    began = f"{first['median_s']:.2f} s" if first["error"] is None else f"not measured: {first['error']}"
    peak = document["peak_rss_mib"]
    rows = [(name, *(s[key] for key in ("p50", "p90", "p99", "n"))) for name, s in document["stages_ms"].items()]
    runs = ", ".join(f"{value:.1f}" for value in rate["all"])
    return "\n".join(
        [
            *(f"warning: {line}" for line in document["warnings"]),
            f"{document['video']}: {document['frames']} frames, {document['people']} people, {document['detections']} "
            f"detections ({document['model']} {document['precision']} on {document['runtime']}, "
            f"{document['detector']})",
            f"{rate['median']:.1f} frames/s, median of {document['runs']} runs ({runs})",
            f"processor time {cpu['median']:.1f} ms a frame: {share:.0%} in the networks, {1 - share:.0%} outside; "
            f"{document['busy_cpus']['median']:.2f} processors busy",
            f"first result {began} after the start; most resident memory {'-' if peak is None else f'{peak:.0f} MiB'}",
            table(rows, ("stage", "p50 ms", "p90 ms", "p99 ms", "samples")),
        ]
    )
