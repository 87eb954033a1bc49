"""What ends a run: Ctrl-C, and SIGTERM and SIGHUP, which end it in the same way with an exit code of their own.

docker stop, systemctl stop and timeout send SIGTERM; a terminal that closes sends SIGHUP.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

_STOPS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
_last: signal.Signals = signal.SIGINT
_remembering: list[tuple[threading.Event, bool]] = []  # the innermost is the last


def stop_code() -> int:
    """The exit code of a run that was stopped: 128 and the signal's number; 130 after Ctrl-C, 143 after SIGTERM."""
    return 128 + int(_last)


def check_stop() -> None:
    """Raise KeyboardInterrupt after a stop that is only remembered; for loops that wait, in the main thread."""
    if _remembering and _remembering[-1][0].is_set():
        raise KeyboardInterrupt


def _stop(number: int, frame: FrameType | None) -> None:
    global _last
    _last = signal.Signals(number)
    if _remembering:
        came, patient = _remembering[-1]
        if patient or not came.is_set():
            came.set()
            return
    raise KeyboardInterrupt


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM and SIGHUP raise KeyboardInterrupt while a command runs, as Ctrl-C does.

    A signal that is ignored stays so, as under nohup, and so does another program's handler. Nothing changes outside
    the main thread.
    """
    global _last
    _last = signal.SIGINT
    with _handled((signal.SIG_DFL,), _STOPS), _handled((signal.default_int_handler,), (signal.SIGINT,)):
        yield


@contextlib.contextmanager
def remembered_stop(patient: bool = False) -> Iterator[threading.Event]:
    """The first stop sets the event and raises nothing; the second raises KeyboardInterrupt as usual.

    An exception in the main thread can come between taking a lock and the `with` that gives it back. The lock is then
    never released, and the threads that wait for it never end. Python also drops an exception that is raised inside a
    finaliser or a callback. So the loop that owns the threads reads the event between two frames.

    The usual handling stays where another handler is set, or outside the main thread.

    Args:
        patient: a second stop raises nothing either.
    """
    came = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    _remembering.append((came, patient))
    try:
        with _handled((signal.default_int_handler,), (signal.SIGINT,)):
            yield came
    finally:
        _remembering.pop()


@contextlib.contextmanager
def _handled(usual: tuple[object, ...], signals: tuple[signal.Signals, ...]) -> Iterator[None]:
    """`_stop` handles these signals where their handler is a usual one; it is put back afterwards."""
    before = {number: signal.getsignal(number) for number in signals}
    is_main = threading.current_thread() is threading.main_thread()
    taken = {number: handler for number, handler in before.items() if is_main and handler in usual}
    for number in taken:
        signal.signal(number, _stop)
    try:
        yield
    finally:
        for number, handler in taken.items():
            signal.signal(number, handler)
