"""One run of the pipeline over a clip, with its processor time; and the figures of several runs."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qanet.benchmarks.statistics import summarize
from qanet.benchmarks.video.networks import NetworkClock
from qanet.runtime.parser import Parser
from qanet.runtime.video import pipeline
from qanet.runtime.video.frame import Frame, Source
from qanet.runtime.video.outputs import open_sinks
from qanet.runtime.video.summary import Summary


@dataclass(frozen=True)
class Run:
    """One run: the pipeline's summary, and processor seconds of the process and of the networks in it."""

    summary: Summary
    cpu_s: float
    networks_cpu_s: float
    network_calls: int


def warm_up(parser: Parser, frame: Frame) -> None:
    """Both networks once: on a frame, and on its middle in case nobody was found."""
    found = parser.detect(frame.image, frame.index)
    height, width = frame.image.shape[:2]
    boxes = found.boxes if len(found) else [[width / 4, height / 4, width * 3 / 4, height * 3 / 4]]
    parser(frame.image, boxes=boxes)


def run_once(source: Source, parser: Parser, clock: NetworkClock, detect_every: int | None, carry: bool) -> Run:
    """The whole source into a file of results that is thrown away."""
    parser.times.samples_ms.clear()
    with tempfile.TemporaryDirectory() as folder:
        sinks = open_sinks(None, str(Path(folder) / "results.jsonl"), source.kind, source.fps)
        begin_s = time.process_time()
        with clock:
            summary = pipeline.run(source, parser, sinks, detect_every=detect_every, carry=carry)
        cpu_s = time.process_time() - begin_s
    return Run(summary, cpu_s, clock.cpu_s, clock.calls)


def figures(runs: Sequence[Run]) -> dict[str, Any]:
    """Medians over runs that parsed the same frames.

    Returns:
        Plain data: frames, people, detections, runs; frames_per_second, cpu_ms_per_frame, networks_share (of the
        processor time), busy_cpus (processors kept busy on average): the median, and every run's; stages_ms: the
        samples of all runs together.
    """
    rows = [
        {
            "frames_per_second": r.summary.frames / r.summary.seconds,
            "cpu_ms_per_frame": r.cpu_s / r.summary.frames * 1e3,
            "networks_share": r.networks_cpu_s / r.cpu_s,
            "busy_cpus": r.cpu_s / r.summary.seconds,
        }
        for r in runs
    ]
    stages: dict[str, list[float]] = {}
    for run in runs:
        for name, samples in run.summary.stages_ms.items():
            stages.setdefault(name, []).extend(samples)
    last = runs[-1].summary
    return {
        "frames": last.frames,
        "people": last.people,
        "detections": last.detections,
        "runs": len(runs),
        **{
            name: {"median": float(np.median([row[name] for row in rows])), "all": [row[name] for row in rows]}
            for name in rows[0]
        },
        "network_calls": runs[-1].network_calls,
        "stages_ms": {name: summarize(samples) for name, samples in stages.items()},
    }
