"""Decode, detect, parse, write: threads over bounded queues, nothing piled up.

A file is held back: each queue waits for the next stage, and no frame is lost. A live source is not: whatever came
while the last frame was parsed is dropped and counted, and the newest is next (see `LiveSource`).
"""

import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing

from qanet.results import ParsingResult
from qanet.runtime.detectors.base import Detections
from qanet.runtime.parser import Parser
from qanet.runtime.timing import StageTimes
from qanet.runtime.video.frames import MAX_PEOPLE, FrameWork
from qanet.runtime.video.interrupt import remembered_interrupt
from qanet.runtime.video.queues import DEPTH, Writer, prefetch
from qanet.runtime.video.sink import Sink
from qanet.runtime.video.source import Frame, Source
from qanet.runtime.video.summary import KEPT_SAMPLES, Summary, forget_old

_Results = Generator[tuple[Frame, ParsingResult], None, None]


def run(
    source: Source, parser: Parser, sinks: list[Sink], detect_every: int | None = 1, carry: bool = True,
    on_frame: Callable[[Frame, ParsingResult], None] | None = None, smooth: bool = False,
    max_people: int = MAX_PEOPLE,
) -> Summary:  # fmt: skip
    """Parse a source to its end, or until Ctrl-C; what was parsed by then is kept.

    Args:
        detect_every: run the detector on every k-th frame; None adapts k. Needs `carry` for the frames between.
        carry: look for the last frame's people again; off for boxes that come from a file.
        on_frame: called in the calling thread after each frame, for a progress bar.
        smooth: hold labels that flicker, see `LabelSmoother`; numbers the people of a video even without `carry`.
        max_people: of a frame that are parsed, the best by score.
    """
    summary = Summary()
    decode_times, write_times = StageTimes(), StageTimes()
    work = FrameWork(parser, source.kind, detect_every, carry, smooth, max_people)
    results = _live_results if source.kind == "live" else _all_results
    start = time.monotonic()
    with ExitStack() as stack:
        for sink in sinks:
            stack.enter_context(sink)
        interrupted = stack.enter_context(remembered_interrupt())
        writer = Writer(sinks, write_times)
        parsed = results(_timed(source, decode_times), work, parser.times)
        try:
            for frame, result in parsed:
                writer.put((frame, result))
                summary.frames += 1
                summary.people_by_frame.append(len(result))
                if on_frame:
                    on_frame(frame, result)
                if interrupted.is_set():
                    raise KeyboardInterrupt
                if summary.frames % KEPT_SAMPLES == 0:
                    for times in (decode_times, parser.times, write_times):
                        forget_old(times.samples_ms)
        except KeyboardInterrupt:
            summary.interrupted = True
        finally:
            parsed.close()
            writer.close()
    summary.seconds = time.monotonic() - start
    summary.stages_ms = {**decode_times.samples_ms, **parser.times.samples_ms, **write_times.samples_ms}
    _account(summary, source, work, max_people)
    return summary


def _account(summary: Summary, source: Source, work: FrameWork, max_people: int) -> None:
    """What was lost on the way, counted and said."""
    summary.warnings = list(source.warnings)
    for name in ("dropped", "skipped", "reconnects"):
        setattr(summary, name, getattr(source, name, 0))
    summary.crowded, summary.detections = work.crowded, work.detections
    if work.crowded:
        summary.warnings.append(
            f"{work.crowded} frames have more than {max_people} people, up to {work.largest_crowd}: "
            f"the best {max_people} by score were parsed"
        )


def _all_results(frames: Iterator[Frame], work: FrameWork, times: StageTimes) -> _Results:
    """Every frame; the detector looks at the next one while this one is parsed.

    Whether it looks is decided here, before this frame is parsed: the results do not depend on which thread is faster.
    """
    with ExitStack() as stack:
        ahead = stack.enter_context(closing(prefetch(frames, DEPTH)))
        detector = ThreadPoolExecutor(1, thread_name_prefix="qanet-detect")
        stack.callback(detector.shutdown, wait=True, cancel_futures=True)

        def begin(frame: Frame) -> tuple[Frame, "Future[Detections] | None"]:
            return frame, detector.submit(work.detect, frame) if work.wants_detections(frame) else None

        first = next(ahead, None)
        pending = begin(first) if first is not None else None
        while pending is not None:
            (frame, found), following, broken = pending, None, None
            try:
                following = next(ahead, None)
            except Exception as error:  # of a later frame: this one comes first
                broken = error
            pending = begin(following) if following is not None else None
            with times.stage("frame"):
                result = work.parse(frame, found.result() if found is not None else None)
            yield frame, result
            if broken is not None:
                raise broken


def _live_results(frames: Iterator[Frame], work: FrameWork, times: StageTimes) -> _Results:
    """The newest frame each time, with nothing looked at ahead: that would be a frame of delay."""
    try:
        for frame in frames:
            with times.stage("frame"):
                result = work.parse(frame, work.detect(frame) if work.wants_detections(frame) else None)
            if frame.captured_s is not None:
                times.add("capture to result", (time.monotonic() - frame.captured_s) * 1e3)
            yield frame, result
    finally:
        frames.close()  # type: ignore[attr-defined]


def _timed(source: Source, times: StageTimes) -> Iterator[Frame]:
    iterator = iter(source)
    try:
        while True:
            start = time.perf_counter()
            try:
                frame = next(iterator)
            except StopIteration:
                return
            times.add("decode", (time.perf_counter() - start) * 1e3)
            yield frame
    finally:
        if hasattr(iterator, "close"):
            iterator.close()
