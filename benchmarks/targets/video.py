"""The video pipeline as a target: a stretch of the input from file to file, with painting and encoding told apart."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.benchmarks.harness import Target
from qanet.benchmarks.targets.variants import Variant
from qanet.results import ParsingResult
from qanet.runtime.detectors.base import Detector
from qanet.runtime.engines.base import Engine
from qanet.runtime.parser import Parser
from qanet.runtime.timing import StageTimes
from qanet.runtime.video import pipeline
from qanet.runtime.video.encode import VideoFileSink
from qanet.runtime.video.frame import Frame, Source
from qanet.runtime.video.sinks import JsonLines, Sink

STRETCH = 8  # frames a call


class Stretch:
    """The first frames of a source, as a source."""

    def __init__(self, source: Source, frames: int):
        self._source, self._frames = source, frames
        self.kind, self.fps, self.warnings = source.kind, source.fps, source.warnings
        self.expected_frames = min(source.expected_frames or frames, frames)

    def __iter__(self) -> Iterator[Frame]:
        return islice(iter(self._source), self._frames)


class PaintedSink:
    """A video sink that paints first and hands on the picture, so that both are timed by themselves."""

    def __init__(self, inner: Sink, times: StageTimes):
        self._inner, self._times = inner, times

    def __enter__(self) -> "PaintedSink":
        self._inner.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._inner.__exit__(kind, error, trace)

    def write(self, frame: Frame, result: ParsingResult) -> None:
        """See `Sink.write`."""
        with self._times.stage("paint"):
            painted = _Painted(result.draw())
        with self._times.stage("encode"):
            self._inner.write(frame, painted)  # type: ignore[arg-type]


class _Painted:
    """What an encoder asks of a result."""

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
        """To be timed; a call is a whole stretch."""
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
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
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
