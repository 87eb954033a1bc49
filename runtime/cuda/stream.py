"""Streams, events, and how long what lies between two of them took.

Everything here wants the GPU's context current: work inside `gpu.active(...)`, which turns the driver's errors into
QanetErrors.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from qanet.errors import QanetError
from qanet.runtime.cuda.context import Gpu

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING, which PyCUDA has no name for


class Event:
    """A point in a stream, to wait for or to measure from; recorded again it stands for the later point."""

    def __init__(self, gpu: Gpu, timing: bool = False):
        flags = gpu.driver.event_flags
        self.driver_event: Any = gpu.driver.Event(flags.DEFAULT if timing else flags.DISABLE_TIMING)

    def synchronize(self) -> None:
        """Block until the GPU is past it."""
        self.driver_event.synchronize()

    def is_done(self) -> bool:
        """Whether the GPU is past it."""
        return bool(self.driver_event.query())

    def milliseconds_since(self, start: "Event") -> float:
        """Time on the GPU's clock from another event to this one, both made with `timing`; waits for this one."""
        self.synchronize()
        return float(self.driver_event.time_since(start.driver_event))


class Timing:
    """Time on the GPU between the two ends of a `Stream.timed` block."""

    def __init__(self, start: Event, stop: Event):
        self._start, self._stop = start, stop

    @property
    def elapsed_ms(self) -> float:
        """Milliseconds on the GPU's clock; waits for the end of the block's work."""
        return self._stop.milliseconds_since(self._start)


class Stream:
    """Work that the GPU does in order.

    It does not wait for the legacy default stream, nor that for it: otherwise another library's copy would break a
    capture, and every lane would wait for every other.
    """

    def __init__(self, gpu: Gpu):
        self._gpu = gpu
        self._stream: Any = gpu.driver.Stream(_NON_BLOCKING)

    @property
    def driver_stream(self) -> Any:
        """PyCUDA's object, for its copies and launches.

        Raises:
            QanetError: the stream is closed.
        """
        if self._stream is None:
            raise QanetError("the stream is closed", expected="an open stream", next_command="open another")
        return self._stream

    @property
    def handle(self) -> int:
        """CUstream as a number, for TensorRT and cuda-python."""
        return int(self.driver_stream.handle)

    def synchronize(self) -> None:
        """Block until all queued work is done; a closed stream has none."""
        if self._stream is not None:
            self._stream.synchronize()

    def record(self, event: Event) -> None:
        """Queue the event: it is reached after all work queued so far."""
        event.driver_event.record(self.driver_stream)

    def wait_for(self, event: Event) -> None:
        """What is queued from here on starts after the event, of whichever stream; the host does not wait."""
        self.driver_stream.wait_for_event(event.driver_event)

    @contextmanager
    def timed(self) -> Iterator[Timing]:
        """Measure what the block queues; copies and kernels of this stream only, nothing of the host's time."""
        start, stop = Event(self._gpu, timing=True), Event(self._gpu, timing=True)
        self.record(start)
        yield Timing(start, stop)
        self.record(stop)

    def close(self) -> None:
        """Wait for the work and destroy the stream; a second call does nothing."""
        try:
            self.synchronize()
        finally:
            self._stream = None
