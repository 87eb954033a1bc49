"""Ctrl-C that ends a run between two frames, and never inside a lock."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def remembered_interrupt() -> Iterator[threading.Event]:
    """The first Ctrl-C sets the event and raises nothing; the second raises KeyboardInterrupt as usual.

    An exception in the main thread can come between taking a lock and the `with` that gives it back. The lock is then
    never released, and the threads that wait for it never end. Python also drops an exception that is raised inside a
    finaliser or a callback. So the loop that owns the threads reads the event between two frames.

    The usual handling stays where another handler is set, or outside the main thread.
    """
    came = threading.Event()
    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not usual or threading.current_thread() is not threading.main_thread():
        yield came
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if came.is_set():
            raise KeyboardInterrupt
        came.set()

    signal.signal(signal.SIGINT, handle)
    try:
        yield came
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
