"""Decode, detect, parse, write: threads connected by bounded queues, and one engine for all streams.

Frames of a file wait in the queues, and none is lost. Of a live source only the newest frame is parsed; the others are
dropped and counted (see `Stream`). People of all streams with a waiting frame share a batch of the network. A stream
without a frame delays no other.
"""

import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from qanet.errors import QanetError
from qanet.results import People
from qanet.runtime.video.frame import Frame, Source
from qanet.runtime.video.sinks import Sink
from qanet.runtime.video.stream import MAX_PEOPLE, FrameWork, Stream
from qanet.runtime.video.summary import KEPT_SAMPLES, Summary, forget_old
from qanet.signals import remembered_stop

if TYPE_CHECKING:
    from qanet.runtime.parser import Parser

_RUNNING = threading.Lock()
_usual_threads: list[int] = []  # OpenCV's before the first run, once for each run
_POLL_S = 0.1  # longest wait before Ctrl-C is checked


def run(
    source: Source,
    parser: "Parser",
    sinks: list[Sink],
    detect_every: int | None = 1,
    carry: bool = True,
    on_frame: Callable[[Frame, People], None] | None = None,
    smooth: bool = False,
    max_people: int = MAX_PEOPLE,
) -> Summary:
    """Parse a source to its end or until Ctrl-C; results up to then are kept.

    Args:
        detect_every: run the detector on every k-th frame; None adapts k. Needs `carry` for the frames between.
        carry: follow people between detections; off for boxes that come from a file.
        on_frame: called in the calling thread after each frame, for a progress bar.
        smooth: reduce flicker of labels, see `LabelSmoother`; numbers the people of a video even without `carry`.
        max_people: people parsed per frame, the best by score.
    """
    work = FrameWork(parser, source.kind, detect_every, carry, smooth, max_people)
    report = None if on_frame is None else lambda _, frame, result: on_frame(frame, result)
    return run_streams([Stream(source, work, sinks)], parser, report)


def run_streams(
    streams: list[Stream], parser: "Parser", on_frame: Callable[[Stream, Frame, People], None] | None = None
) -> Summary:
    """Parse several sources to the end of the last, or until Ctrl-C; what was parsed by then is kept.

    Returns:
        The counts of the only stream; of several streams the sum, and each one's own in `streams`. A stream that ends
        with a `QanetError` while others continue has it in its `error`, and leaves no files.
    Raises:
        QanetError: of the only stream, or of the first one where each had one.
    """
    with remembered_stop() as ctrl_c:
        frames = parse_streams(streams, parser, ctrl_c)
        try:
            while True:
                parsed = next(frames)
                if on_frame is not None:
                    try:
                        on_frame(*parsed)
                    except BaseException as error:  # ends the run like an error of its own
                        frames.throw(error)
        except StopIteration as end:
            summary: Summary = end.value
            return summary


def parse_streams(
    streams: list[Stream], parser: "Parser", stop: threading.Event
) -> Generator[tuple[Stream, Frame, People], None, Summary]:
    """Each parsed frame of several streams, in the order of parsing; closes the streams at its end.

    Args:
        stop: set elsewhere, such as in a signal handler, to end the run between two frames.
    """
    changed, start = threading.Condition(), time.monotonic()
    interrupted, error = False, None
    with ExitStack() as stack:
        stack.enter_context(_one_thread_a_call())
        detector = ThreadPoolExecutor(1, thread_name_prefix="qanet-detect")
        stack.callback(detector.shutdown, wait=True, cancel_futures=True)
        try:
            for stream in streams:
                stream.start(changed, detector.submit)
            while ready := _wait(streams, changed, stop):
                yield from _parse(ready, parser, alone=len(streams) == 1)
                _forget(streams, parser)
        except (KeyboardInterrupt, GeneratorExit):
            interrupted = True
        except BaseException as broken:
            error = broken
        _close(streams, error)
    return _summary(streams, parser, time.monotonic() - start, interrupted)


def iterate(
    source: Source,
    parser: "Parser",
    sinks: list[Sink],
    detect_every: int | None = 1,
    carry: bool = True,
    smooth: bool = False,
    max_people: int = MAX_PEOPLE,
) -> Iterator[tuple[Frame, People]]:
    """The frames of `run`, one at a time in the caller's loop; leaving the loop closes the source and the sinks.

    Ctrl-C while this code runs ends it between two frames and raises KeyboardInterrupt in the caller's loop.
    """
    work = FrameWork(parser, source.kind, detect_every, carry, smooth, max_people)
    stop = threading.Event()
    frames = parse_streams([Stream(source, work, sinks)], parser, stop)
    try:
        while True:
            with remembered_stop() as ctrl_c:
                parsed = next(frames, None)
            if ctrl_c.is_set():
                raise KeyboardInterrupt
            if parsed is None:
                return
            yield parsed[1:]
    finally:
        frames.close()


@contextmanager
def _one_thread_a_call() -> Iterator[None]:
    """Run OpenCV without its thread pool, whose waiting threads would take processor time from the networks.

    The setting is of the whole process: the first of several runs takes the pool away, the last gives it back.
    """
    import cv2

    with _RUNNING:
        if not _usual_threads:
            _usual_threads.append(cv2.getNumThreads())
            cv2.setNumThreads(1)
        else:
            _usual_threads.append(_usual_threads[0])
    try:
        yield
    finally:
        with _RUNNING:
            usual = _usual_threads.pop()
            if not _usual_threads:
                cv2.setNumThreads(usual)


def _wait(streams: list[Stream], changed: threading.Condition, ctrl_c: threading.Event) -> list[Stream]:
    """Streams whose next frame can be parsed, the longest waiting first; empty when all have ended."""
    while True:
        with changed:
            running = [stream for stream in streams if not _has_ended(stream, alone=len(streams) == 1)]
            for stream in running:
                stream.advance()
            if ctrl_c.is_set() or any(stream.wants_no_more for stream in streams):
                raise KeyboardInterrupt
            ready = [stream for stream in running if stream.ready]
            if ready or not running:
                return sorted(ready, key=lambda stream: stream.waiting_since_s)
            changed.wait(_POLL_S)


def _has_ended(stream: Stream, alone: bool) -> bool:
    try:
        return stream.has_ended()
    except QanetError as error:
        if alone:
            raise
        stream.fail(error)
        return True


def _parse(ready: list[Stream], parser: "Parser", alone: bool) -> Iterator[tuple[Stream, Frame, People]]:
    """Parse one frame of each of the first streams that fit into a batch; the others wait for the next batch."""
    together: list[Stream] = []
    parts, room = [], parser.max_batch
    for stream in ready:
        try:
            frame, found = stream.propose()
        except QanetError as error:
            if alone:
                raise
            stream.fail(error)
            continue
        if together and len(found) > room:
            break
        room -= len(found)
        together.append(stream)
        parts.append((frame.image, found))
    for stream, result in zip(together, parser.parse_batch(parts)):
        try:
            frame, result = stream.finish(result)
        except QanetError as error:  # raised by its sinks
            if alone:
                raise
            stream.fail(error)
            continue
        yield stream, frame, result


def _close(streams: list[Stream], error: BaseException | None) -> None:
    """Close all streams, then raise the error of the run, if any."""
    for stream in streams:
        try:
            stream.close(error)
        except BaseException as broken:
            stream.error = stream.error or broken
    failed = [stream.error for stream in streams if stream.error is not None]
    bugs = [broken for broken in failed if not isinstance(broken, QanetError)]
    for reason in (error, *bugs):
        if reason is not None:
            raise reason
    if len(failed) == len(streams) and failed[0] is not None:
        raise failed[0]


def _forget(streams: list[Stream], parser: "Parser") -> None:
    """Keep only the latest times, so that the memory of a long run is bounded."""
    if any(stream.summary.frames % KEPT_SAMPLES == 0 for stream in streams):
        for times in (parser.times, *(stream.times for stream in streams)):
            forget_old(times.samples_ms)


def _summary(streams: list[Stream], parser: "Parser", seconds: float, interrupted: bool) -> Summary:
    """The summary of the only stream, or the totals of all."""
    for stream in streams:
        stream.summary.interrupted = interrupted
        stream.summary.error = str(stream.error) if stream.error is not None else None
    if len(streams) == 1:
        total, own = streams[0].summary, streams[0].times.samples_ms
        last = {name: own[name] for name in own if name == "write"}
        total.stages_ms = {**{n: own[n] for n in own if n not in last}, **parser.times.samples_ms, **last}
        total.seconds = seconds
        return total
    total = Summary(seconds=seconds, interrupted=interrupted, stages_ms=parser.times.samples_ms)
    for part in (stream.summary for stream in streams):
        total.streams.append(part)
        total.people_by_frame += part.people_by_frame
        for name in ("frames", "dropped", "skipped", "reconnects", "crowded", "detections"):
            setattr(total, name, getattr(total, name) + getattr(part, name))
    return total
