"""One stream: frames from a source, work on each frame, results to sinks. One thread reads and one writes."""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np

from qanet.results import People
from qanet.runtime.detectors.base import Detections, WholeImage
from qanet.runtime.timing import StageTimes
from qanet.runtime.track.carry import CarriedPeople
from qanet.runtime.track.smooth import LabelSmoother
from qanet.runtime.track.tracker import Cadence
from qanet.runtime.video.frame import Frame, Source
from qanet.runtime.video.queues import Feeder, Writer
from qanet.runtime.video.sinks import Sink
from qanet.runtime.video.summary import Summary

if TYPE_CHECKING:
    from qanet.runtime.parser import Parser

Submit = Callable[[Callable[[Frame], Detections], Frame], "Future[Detections]"]


class FrameWork:
    """Detection, tracking and smoothing around the parsing of each frame; see `pipeline.run` for the arguments.

    Call `propose`, then `finish`, for every frame in order.
    """

    def __init__(
        self, parser: "Parser", kind: str, detect_every: int | None, carry: bool, smooth: bool, max_people: int
    ):
        moving = kind in MOVING
        carry = carry and not (isinstance(parser.detector, WholeImage) and parser.is_whole)  # all of a picture stays
        self._parser, self.times = parser, parser.times
        self._people = CarriedPeople(carry) if moving and (carry or smooth) else None
        self._cadence = Cadence(detect_every if moving and carry else 1)
        self._smoother = LabelSmoother() if moving and smooth else None
        self.max_people = max_people
        self.crowded = self.largest_crowd = self.detections = 0

    def wants_detections(self, frame: Frame) -> bool:
        """Whether to call `detect` for this frame; call it once per frame, in order."""
        return self._cadence.wants(frame.index)

    def detect(self, frame: Frame) -> Detections:
        """The detections of a frame; may run in another thread."""
        self.detections += 1
        return self._parser.detect(frame.image, frame.index if frame.name == str(frame.index) else frame.name)

    def propose(self, frame: Frame, found: Detections | None) -> Detections:
        """The boxes to parse in a frame; `found` is None if the detector did not run on it."""
        if self._people is None:
            assert found is not None
            return self._limited(found)
        with self.times.stage("track"):
            proposed = self._people.propose(found, (frame.image.shape[0], frame.image.shape[1]))
        return self._limited(proposed)

    def finish(self, result: People, detected: bool) -> People:
        """The final result of a frame whose boxes, given by `propose`, were parsed.

        Args:
            detected: whether the detector ran on the frame.
        """
        if self._people is not None:
            with self.times.stage("carry"):
                self._people.update(result)
                if detected:
                    self._cadence.learn(self._people.surprised)
                if self._people.uneasy:
                    self._cadence.hurry()
        if self._smoother is not None:
            with self.times.stage("smooth"):
                result = self._smoother(result)
        return result

    def _limited(self, found: Detections) -> Detections:
        """The `max_people` best by score."""
        if len(found) <= self.max_people:
            return found
        self.crowded += 1
        self.largest_crowd = max(self.largest_crowd, len(found))
        return found.take(np.argsort(-found.scores, kind="stable")[: self.max_people])


class Stream:
    """A source, the work on its frames, and its sinks; used between `start` and `close`.

    The detector gets the next frame of a file before the current one is parsed. Which frames it gets does not depend on
    the speed of the threads, so results are the same in every run, alone or with other streams. Of a live source the
    newest frame is taken, without looking ahead, which would delay it by a frame.

    Args:
        source: yields the frames.
        work: on each frame.
        sinks: take the results.

    Attributes:
        summary: of the frames so far.
        error: why the stream failed; None if it did not.
        times: of the stages decode, frame, capture to result, and write.
    """

    def __init__(self, source: Source, work: FrameWork, sinks: list[Sink]):
        self.source, self.work, self._sinks = source, work, sinks
        self.summary, self.times = Summary(), StageTimes()
        self.error: BaseException | None = None
        self._live = source.kind == "live"
        self._begun: deque[tuple[Frame, Future[Detections] | None]] = (
            deque()
        )  # the current frame, and the next of a file
        self._stack = ExitStack()
        self._since: float | None = None  # since when the current frame waits only for the detector
        self._proposed: Detections | None = None
        self._start = 0.0
        self._feeder: Feeder | None = None
        self._writer: Writer | None = None

    def start(self, changed: threading.Condition, submit: Submit) -> None:
        """Open the sinks and start reading.

        Args:
            changed: notified when `ready` may have changed.
            submit: calls the detector in its thread.
        """
        for sink in self._sinks:
            self._stack.enter_context(sink)
        self._changed, self._submit = changed, submit
        self._start = time.monotonic()
        self._writer = Writer(self._sinks, self.times, changed)
        self._feeder = Feeder(self.source, self.times, changed)

    def advance(self) -> None:
        """Start work on new frames; call it before `ready`, often, from the thread that parses."""
        assert self._feeder is not None and self._writer is not None
        room = (1 if self._writer.has_room else 0) if self._live else 2
        while len(self._begun) < room and (frame := self._feeder.take()) is not None:
            future = None
            if self.work.wants_detections(frame):
                future = self._submit(self.work.detect, frame)
                future.add_done_callback(self._notify)
            self._begun.append((frame, future))
        if self._since is None and self._may_parse:
            self._since = time.perf_counter()

    def _notify(self, _: object) -> None:
        with self._changed:
            self._changed.notify_all()

    @property
    def _may_parse(self) -> bool:
        """Whether the detector has been given all that precedes the parsing of the current frame."""
        assert self._feeder is not None
        return bool(self._begun) and (self._live or len(self._begun) > 1 or self._feeder.ended)

    @property
    def ready(self) -> bool:
        """Whether a frame can be parsed now, and its result written."""
        assert self._writer is not None
        if not (self._may_parse and self._writer.has_room):
            return False
        future = self._begun[0][1]
        return future is None or future.done()

    @property
    def waiting_since_s(self) -> float:
        """Since when the next frame could have been parsed, by `time.perf_counter`."""
        return self._since or 0.0

    @property
    def wants_no_more(self) -> bool:
        """Whether a sink asked for the end of the run."""
        return self._writer is not None and self._writer.stopped

    def has_ended(self) -> bool:
        """Whether the stream is at its end; raises the error of its source or sinks."""
        assert self._feeder is not None and self._writer is not None
        if self.error is not None:
            return True
        self._writer.check()
        return not self._begun and self._feeder.exhausted()

    def propose(self) -> tuple[Frame, Detections]:
        """The next frame and the people to parse in it; raises errors of the detector."""
        frame, future = self._begun[0]
        if self._proposed is None:
            self._proposed = self.work.propose(frame, future.result() if future is not None else None)
        return frame, self._proposed

    def finish(self, result: People) -> tuple[Frame, People]:
        """Take the parsing of the frame that `propose` returned, and queue its result for writing."""
        assert self._writer is not None and self._since is not None
        frame, future = self._begun.popleft()
        result = self.work.finish(result, detected=future is not None)
        self._time("frame", time.perf_counter() - self._since)
        self._since = self._proposed = None
        if frame.captured_s is not None:
            self._time("capture to result", time.monotonic() - frame.captured_s)
        self._writer.put((frame, result))
        self.summary.frames += 1
        self.summary.people_by_frame.append(len(result))
        self.summary.seconds = time.monotonic() - self._start
        return frame, result

    def _time(self, stage: str, seconds: float) -> None:
        """Record a duration for this stream and for the whole run."""
        for times in (self.times, self.work.times):
            times.add(stage, seconds * 1e3)

    def fail(self, error: BaseException) -> None:
        """End the stream because of an error."""
        self.error = error
        self.stop()

    def stop(self) -> None:
        """Stop reading; parsed frames are still written."""
        self._begun.clear()
        if self._feeder is not None:
            self._feeder.stop()

    def close(self, error: BaseException | None) -> None:
        """Write what is left and close the sinks, which delete their files after an error; raises errors of sinks."""
        self.stop()
        error = self.error or error
        try:
            if self._feeder is not None:
                self._feeder.close()
            if self._writer is not None:
                self._writer.close()
                # Ctrl-C may come between queueing a result and counting it: the written results count
                self.summary.frames, self.summary.people_by_frame = len(self._writer.people), self._writer.people
        except BaseException as broken:
            error = error or broken
            raise
        finally:
            self._stack.__exit__(type(error) if error else None, error, error.__traceback__ if error else None)
            self._account()

    def _account(self) -> None:
        """Complete the summary with the counts and warnings of source and work."""
        summary, work, source = self.summary, self.work, self.source
        summary.warnings = list(source.warnings)
        for name in ("dropped", "skipped", "reconnects"):
            setattr(summary, name, getattr(source, name, 0))
        summary.decoder = getattr(source, "decoder", {})
        summary.crowded, summary.detections = work.crowded, work.detections
        summary.stages_ms = self.times.samples_ms
        if work.crowded:
            summary.warnings.append(
                f"{work.crowded} frames have more than {work.max_people} people, up to {work.largest_crowd}: "
                f"the best {work.max_people} by score were parsed"
            )


MAX_PEOPLE = 32  # a frame's time is bounded: two full batches of the network
MOVING = ("video", "live")  # kinds of sources whose frames follow each other
