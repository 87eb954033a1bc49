"""Decode, detect and parse, write: three threads over bounded queues, nothing lost, nothing piled up."""

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from qanet.results import ParsingResult
from qanet.runtime.carry import CarriedPeople
from qanet.runtime.parser import Parser
from qanet.runtime.timing import StageTimes
from qanet.runtime.video.sink import Sink
from qanet.runtime.video.source import Frame, Source

_DEPTH = 4  # frames a queue; a 1080p frame is 6 MB
_T = TypeVar("_T")


@dataclass
class Summary:
    """What a run did."""

    frames: int = 0
    people_by_frame: list[int] = field(default_factory=list)
    seconds: float = 0.0
    interrupted: bool = False
    warnings: list[str] = field(default_factory=list)
    stages_ms: dict[str, list[float]] = field(default_factory=dict)

    @property
    def people(self) -> int:
        """People of all frames together."""
        return sum(self.people_by_frame)

    def to_json(self) -> dict[str, Any]:
        """Counts, rate, and p50/p90/p99 of each stage in milliseconds."""
        stages = {name: percentiles(samples) for name, samples in self.stages_ms.items()}
        rate = self.frames / self.seconds if self.seconds else 0.0
        return {
            "frames": self.frames, "people": self.people, "seconds": round(self.seconds, 3),
            "frames_per_second": round(rate, 2), "interrupted": self.interrupted, "warnings": self.warnings,
            "people_by_frame": self.people_by_frame, "stages_ms": stages,
        }  # fmt: skip


def percentiles(samples_ms: list[float]) -> dict[str, float]:
    """p50, p90, p99 and the count of a stage's samples."""
    p50, p90, p99 = np.percentile(samples_ms, (50, 90, 99))
    return {"p50": round(float(p50), 3), "p90": round(float(p90), 3), "p99": round(float(p99), 3), "n": len(samples_ms)}


def run(
    source: Source, parser: Parser, sinks: list[Sink], detect_every: int = 1, carry: bool = True,
    on_frame: Callable[[Frame, ParsingResult], None] | None = None,
) -> Summary:  # fmt: skip
    """Parse a source to its end, or until Ctrl-C; what was parsed by then is kept.

    Args:
        detect_every: run the detector on every k-th frame; needs `carry` for the frames between.
        carry: look for the last frame's people again; off for boxes that come from a file.
        on_frame: called in the calling thread after each frame, for a progress bar.
    """
    summary = Summary()
    carried = CarriedPeople() if carry and source.kind == "video" else None
    decode_times, write_times = StageTimes(), StageTimes()
    start = time.monotonic()
    with ExitStack() as stack:
        for sink in sinks:
            stack.enter_context(sink)
        writer = _Writer(sinks, write_times)
        frames = prefetch(_timed(source, decode_times), _DEPTH)
        try:
            for frame in frames:
                with parser.times.stage("frame"):
                    result = _parse(parser, carried, frame, detect_every)
                writer.put((frame, result))
                summary.frames += 1
                summary.people_by_frame.append(len(result))
                if on_frame:
                    on_frame(frame, result)
        except KeyboardInterrupt:
            summary.interrupted = True
        finally:
            frames.close()
            writer.close()
    summary.seconds = time.monotonic() - start
    summary.warnings = list(source.warnings)
    summary.stages_ms = {**decode_times.samples_ms, **parser.times.samples_ms, **write_times.samples_ms}
    return summary


def _parse(parser: Parser, carried: CarriedPeople | None, frame: Frame, detect_every: int) -> ParsingResult:
    key = frame.name if not frame.name.isdigit() else frame.index
    if carried is None:
        return parser.parse(frame.image, parser.detect(frame.image, key))
    found = parser.detect(frame.image, key) if frame.index % detect_every == 0 else None
    result = parser.parse(frame.image, carried.propose(found))
    with parser.times.stage("carry"):
        carried.update(result)
    return result


def _timed(source: Source, times: StageTimes) -> Iterator[Frame]:
    iterator = iter(source)
    while True:
        start = time.perf_counter()
        try:
            frame = next(iterator)
        except StopIteration:
            return
        times.add("decode", (time.perf_counter() - start) * 1e3)
        yield frame


def prefetch(items: Iterable[_T], depth: int) -> Generator[_T, None, None]:
    """Iterate `items` in a thread, at most `depth` ahead; its errors are raised here; closing stops the thread."""
    waiting: queue.Queue[Any] = queue.Queue(depth)
    stop = threading.Event()
    end = object()

    def offer(item: object) -> bool:
        while not stop.is_set():
            try:
                waiting.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not offer(item):
                    return
            offer(end)
        except BaseException as error:  # handed over to the consumer, whatever it is
            offer(error)

    thread = threading.Thread(target=work, name="qanet-decode", daemon=True)
    thread.start()
    try:
        while (item := waiting.get()) is not end:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()


class _Writer:
    """Hands results to the sinks in a thread of its own; an error of a sink is raised at the next put or close."""

    def __init__(self, sinks: list[Sink], times: StageTimes):
        self._sinks, self._times = sinks, times
        self._waiting: queue.Queue[tuple[Frame, ParsingResult] | None] = queue.Queue(_DEPTH)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="qanet-write", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while (item := self._waiting.get()) is not None:
            if self._error is not None:
                continue  # keep draining, so that the producer never blocks on a broken sink
            try:
                with self._times.stage("write"):
                    for sink in self._sinks:
                        sink.write(*item)
            except BaseException as error:
                self._error = error

    def put(self, item: tuple[Frame, ParsingResult]) -> None:
        if self._error is not None:
            raise self._error
        self._waiting.put(item)

    def close(self) -> None:
        self._waiting.put(None)
        self._thread.join()
        if self._error is not None:
            raise self._error
