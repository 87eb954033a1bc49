"""Threads before and after the parsing, with bounded queues; errors reach the thread that parses."""

import queue
import threading
import time
from collections import deque

from qanet.results import People
from qanet.runtime.timing import StageTimes
from qanet.runtime.video.frame import Frame, Source
from qanet.runtime.video.sinks import Sink, StopRun

DEPTH = 4  # frames per queue; a 1080p frame is 6 MB
_HUNG_S = 2.0  # a read that takes longer is left to its thread


class Feeder:
    """Reads a source in a thread. A file waits while the queue has `DEPTH` frames; of a live source the newest stays.

    Args:
        source: iterated once; `dropped` of a live source counts the replaced frames.
        times: gets "decode", the time of each read.
        changed: notified at a new frame and at the end.
    """

    def __init__(self, source: Source, times: StageTimes, changed: threading.Condition):
        self._source, self._times, self._changed = source, times, changed
        self._waiting: deque[Frame] = deque()
        self._live = source.kind == "live"
        self._stopped = self._done = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._read, name="qanet-decode", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            frames = iter(self._source)
            try:
                while not self._stopped:
                    start = time.perf_counter()
                    frame = next(frames, None)
                    if frame is None:
                        break
                    self._times.add("decode", (time.perf_counter() - start) * 1e3)
                    self._offer(frame)
            finally:
                if hasattr(frames, "close"):
                    frames.close()
        except BaseException as error:  # raised again in the thread that parses
            self._error = error
        finally:
            with self._changed:
                self._done = True
                self._changed.notify_all()

    def _offer(self, frame: Frame) -> None:
        with self._changed:
            if self._live:
                self._source.dropped += len(self._waiting)  # type: ignore[attr-defined]
                self._waiting.clear()
            else:
                self._changed.wait_for(lambda: len(self._waiting) < DEPTH or self._stopped)
            self._waiting.append(frame)
            self._changed.notify_all()

    def take(self) -> Frame | None:
        """The next frame; None if there is none yet."""
        with self._changed:
            if not self._waiting:
                return None
            self._changed.notify_all()
            return self._waiting.popleft()

    @property
    def ended(self) -> bool:
        """Whether every frame was taken and no more will come."""
        return self._done and not self._waiting

    def exhausted(self) -> bool:
        """`ended`; raises the error of the source once all frames before it were taken."""
        if self.ended and self._error is not None:
            raise self._error
        return self.ended

    def stop(self) -> None:
        """Stop reading."""
        with self._changed:
            self._stopped = True
            self._waiting.clear()
            self._changed.notify_all()
        if hasattr(self._source, "stop"):
            self._source.stop()

    def close(self) -> None:
        """Stop and wait for the thread, unless a read hangs."""
        self.stop()
        self._thread.join(_HUNG_S)


class Writer:
    """Passes results to the sinks in a thread; an error of a sink is raised by the next call.

    Args:
        sinks: entered.
        times: gets "write".
        changed: notified when there is room again.

    Attributes:
        stopped: whether a sink raised `StopRun`.
        people: number of people of each result so far.
    """

    def __init__(self, sinks: list[Sink], times: StageTimes, changed: threading.Condition):
        self._sinks, self._times, self._changed = sinks, times, changed
        self._waiting: queue.Queue[tuple[Frame, People] | None] = queue.Queue(DEPTH)
        self._error: BaseException | None = None
        self.stopped = False
        self.people: list[int] = []
        self._thread = threading.Thread(target=self._work, name="qanet-write", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while (item := self._waiting.get()) is not None:
            self.people.append(len(item[1]))
            if self._error is None:  # after an error the queue is drained, so that `put` never blocks
                try:
                    with self._times.stage("write"):
                        for sink in self._sinks:
                            sink.write(*item)
                except StopRun:
                    self.stopped = True
                except BaseException as error:
                    self._error = error
            with self._changed:
                self._changed.notify_all()

    @property
    def has_room(self) -> bool:
        """Whether `put` would not wait."""
        return not self._waiting.full()

    def check(self) -> None:
        """Raise the error of a sink."""
        if self._error is not None:
            raise self._error

    def put(self, item: tuple[Frame, People]) -> None:
        """Queue one result; waits while the queue is full."""
        self.check()
        self._waiting.put(item)

    def close(self) -> None:
        """Wait until everything is written."""
        self._waiting.put(None)
        self._thread.join()
        self.check()
