"""Threads between the stages: bounded queues that hold back a fast producer, and hand every error over."""

import queue
import threading
from collections.abc import Generator, Iterable
from typing import Any, TypeVar

from qanet.results import ParsingResult
from qanet.runtime.timing import StageTimes
from qanet.runtime.video.sink import Sink
from qanet.runtime.video.source import Frame

DEPTH = 4  # frames a queue; a 1080p frame is 6 MB
_T = TypeVar("_T")


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


class Writer:
    """Hands results to the sinks in a thread of its own; an error of a sink is raised at the next put or close."""

    def __init__(self, sinks: list[Sink], times: StageTimes):
        self._sinks, self._times = sinks, times
        self._waiting: queue.Queue[tuple[Frame, ParsingResult] | None] = queue.Queue(DEPTH)
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
        """One frame's result; waits while the sinks are behind."""
        if self._error is not None:
            raise self._error
        self._waiting.put(item)

    def close(self) -> None:
        """Wait until everything is written."""
        self._waiting.put(None)
        self._thread.join()
        if self._error is not None:
            raise self._error
