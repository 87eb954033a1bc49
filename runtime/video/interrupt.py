"""Ctrl-C that cannot get lost."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def remembered_interrupt() -> Iterator[threading.Event]:
    """Ctrl-C raises KeyboardInterrupt as ever and is remembered in the event besides.

    Python drops an exception that is raised inside a finaliser or a callback, and Ctrl-C may come there as well as
    anywhere: whoever works in a loop looks at the event. Only where nobody else has taken the signal.
    """
    came = threading.Event()
    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not usual or threading.current_thread() is not threading.main_thread():
        yield came
        return

    def handle(number: int, frame: FrameType | None) -> None:
        came.set()
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, handle)
    try:
        yield came
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
