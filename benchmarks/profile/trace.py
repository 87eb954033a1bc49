"""The pipeline's threads over time, as a trace that chrome://tracing and ui.perfetto.dev open."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from qanet.benchmarks.targets.variants import Variant
from qanet.benchmarks.targets.video import STRETCH, PaintedSink, Stretch
from qanet.files import write_text
from qanet.runtime.detectors.base import Detector
from qanet.runtime.engines.base import Engine
from qanet.runtime.parser import Parser
from qanet.runtime.timing import StageTimes
from qanet.runtime.video import pipeline
from qanet.runtime.video.encode import VideoFileSink
from qanet.runtime.video.frame import Frame, Source
from qanet.runtime.video.sinks import JsonLines, Sink


@dataclass(frozen=True)
class Event:
    """A stage's stretch of time in a thread; microseconds of one monotonic clock."""

    name: str
    thread: str
    start_us: float
    duration_us: float


class TracingTimes(StageTimes):
    """Stage times that also remember when, and in which thread. Safe to share between threads."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        super().__init__()
        self._clock = clock
        self.events: list[Event] = []

    def add(self, name: str, duration_ms: float) -> None:
        """See `StageTimes.add`; the stage has just ended."""
        super().add(name, duration_ms)
        end_us = self._clock() * 1e6
        thread = threading.current_thread().name  # appending to a list is atomic
        self.events.append(Event(name, thread, end_us - duration_ms * 1e3, duration_ms * 1e3))


class _TimedSource:
    """A source whose decoding is traced in the thread that decodes."""

    def __init__(self, inner: Source, times: StageTimes):
        self._inner, self._times = inner, times
        self.kind, self.fps, self.warnings = inner.kind, inner.fps, inner.warnings
        self.expected_frames = inner.expected_frames

    def __iter__(self) -> Iterator[Frame]:
        frames = iter(self._inner)
        while True:
            start = time.perf_counter()
            try:
                frame = next(frames)
            except StopIteration:
                return
            self._times.add("decode", (time.perf_counter() - start) * 1e3)
            yield frame


def trace_pipeline(
    variant: Variant, engine: Engine, detector: Detector, source: Source, frames: int = 2 * STRETCH
) -> list[Event]:
    """Run the video pipeline over the first frames of a source, into a file that is thrown away."""
    times = TracingTimes()
    parser = Parser(variant.bundle, engine, variant.tail, detector)
    parser.times = times
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        sink: Sink = JsonLines(folder / "results.jsonl")
        if source.kind == "video":
            sink = PaintedSink(VideoFileSink(folder / "parsed.webm", source.fps), times)
        pipeline.run(_TimedSource(Stretch(source, frames), times), parser, [sink])
    return times.events


def chrome_trace(events: list[Event]) -> dict[str, Any]:
    """The trace event format: a complete event ("X") a stage, names of the threads, time from the first event on."""
    threads = {name: number for number, name in enumerate(dict.fromkeys(event.thread for event in events), 1)}
    first = min((event.start_us for event in events), default=0.0)
    named = [
        {"name": "thread_name", "ph": "M", "pid": 1, "tid": number, "args": {"name": name}}
        for name, number in threads.items()
    ]
    spans = [
        {
            "name": e.name,
            "ph": "X",
            "pid": 1,
            "tid": threads[e.thread],
            "ts": round(e.start_us - first, 3),
            "dur": round(e.duration_us, 3),
        }
        for e in sorted(events, key=lambda e: e.start_us)
    ]
    return {"displayTimeUnit": "ms", "traceEvents": named + spans}


def write_trace(path: Path, events: list[Event]) -> None:
    """The trace as a file, whole or not at all."""
    write_text(path, json.dumps(chrome_trace(events)) + "\n")
