"""The video pipeline over a stretch of the input, from file to file: as a target, and as a trace of its threads.

The trace opens in chrome://tracing and ui.perfetto.dev.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.benchmarks.harness import Target
from qanet.benchmarks.variants import Variant
from qanet.files import write_text
from qanet.results import People
from qanet.runtime.backends.base import Engine
from qanet.runtime.detectors.base import Detector
from qanet.runtime.parser import Parser
from qanet.runtime.timing import StageTimes
from qanet.runtime.video import pipeline
from qanet.runtime.video.encode import VideoFileSink
from qanet.runtime.video.frame import Frame, Source
from qanet.runtime.video.sinks import JsonLines, Sink
from qanet.scratch import scratch_folder

STRETCH = 8  # frames per call


class Stretch:
    """The first frames of a source, as a source."""

    def __init__(self, source: Source, frames: int):
        self._source, self._frames = source, frames
        self.kind, self.fps, self.warnings = source.kind, source.fps, source.warnings
        self.expected_frames = min(source.expected_frames or frames, frames)

    def __iter__(self) -> Iterator[Frame]:
        return islice(iter(self._source), self._frames)


class PaintedSink:
    """A video sink that paints first and then encodes, so that each is timed."""

    def __init__(self, inner: Sink, times: StageTimes):
        self._inner, self._times = inner, times

    def __enter__(self) -> "PaintedSink":
        self._inner.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._inner.__exit__(kind, error, trace)

    def write(self, frame: Frame, result: People) -> None:
        """See `Sink.write`."""
        with self._times.stage("paint"):
            painted = _Painted(result.draw())
        with self._times.stage("encode"):
            self._inner.write(frame, painted)  # type: ignore[arg-type]


class _Painted:
    """A picture that was painted already, as an encoder takes it."""

    def __init__(self, picture: NDArray[np.uint8]):
        self._picture = picture

    def draw(self, **_: Any) -> NDArray[np.uint8]:
        return self._picture


class PipelineTarget:
    """Calls of one variant, and the stages of all of them together."""

    def __init__(self, variant: Variant, engine: Engine, detector: Detector, source: Source, frames: int = STRETCH):
        self.variant, self.engine, self.detector = variant, engine, detector
        self.source = Stretch(source, frames)
        self.stages_ms: dict[str, list[float]] = {}
        self.frames: list[int] = []
        self.people = 0

    def target(self) -> Target:
        """The target; one call is a whole stretch."""
        name, v = f"{self.variant.label} pipeline, {self.source.expected_frames} frames", self.variant
        return Target(
            name,
            self.call,
            "pipeline",
            v.precision,
            self.engine.runtime,
            self.source.expected_frames,
            self.forget,
            v.label,
        )

    def call(self, number: int) -> None:
        """Parse the stretch into a file that is thrown away."""
        parser = Parser(self.variant.bundle, self.engine, self.variant.tail, self.detector)
        times = StageTimes()
        with ExitStack() as stack:
            folder = stack.enter_context(scratch_folder())
            sink: Sink = JsonLines(folder / "results.jsonl")
            if self.source.kind == "video":
                sink = PaintedSink(VideoFileSink(folder / "parsed.webm", self.source.fps), times)
            summary = pipeline.run(self.source, parser, [sink])
        if summary.interrupted:
            raise KeyboardInterrupt
        self.frames.append(summary.frames)
        self.people += summary.people
        for stage, samples in {**summary.stages_ms, **times.samples_ms}.items():
            self.stages_ms.setdefault(stage, []).extend(samples)

    def forget(self) -> None:
        """Drop what the warm-up left."""
        self.stages_ms.clear()
        self.frames.clear()
        self.people = 0


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
        folder = stack.enter_context(scratch_folder())
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
