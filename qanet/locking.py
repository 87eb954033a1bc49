"""One process at a time: an advisory lock on a file, which the kernel drops when its holder dies."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from qanet.errors import QanetError

_POLL_S = 0.05


@contextlib.contextmanager
def locked(
    path: Path, *, timeout_s: float, doing: str, waiting: Callable[[str], object] | None = None
) -> Iterator[None]:
    """Hold the lock of `path`, a file that is made for it and removed after it; its text is the holder's process id.

    Where Python has no fcntl (Windows) nothing is locked.

    Args:
        timeout_s: how long to wait for another holder.
        doing: what the lock is for, to say in messages: "building into NAME".
        waiting: called once with a line when somebody else holds it.
    Raises:
        QanetError: still held after `timeout_s`, or the place can hold no lock.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    deadline, told, handle = time.monotonic() + timeout_s, False, _open(path)
    try:
        while not _taken(fcntl, handle, path):
            holder = os.pread(handle, 20, 0).decode(errors="replace") or "unknown"
            if time.monotonic() >= deadline:
                raise QanetError(
                    f"{doing} must wait for process {holder}",
                    expected=f"its end within {timeout_s:g} s",
                    got="it still runs",
                    next_command=f"wait for process {holder}, or end it, and try again",
                )
            if waiting is not None and not told:
                waiting(f"{doing}: waiting for process {holder}, up to {timeout_s:g} s")
                told = True
            time.sleep(_POLL_S)
            before, handle = handle, _open(path)  # the holder removes the file when it is done
            os.close(before)
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)  # while it is still locked: who waits for it looks again
    finally:
        os.close(handle)


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise QanetError(f"cannot lock {path}", expected="the right to write there", got=error.strerror) from error


def _taken(fcntl: Any, handle: int, path: Path) -> bool:
    """Try once; a file that its last holder removed since it was opened locks nothing."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:  # a file system without locks
        raise QanetError(
            f"cannot lock {path}",
            expected="a file system with locks",
            got=error.strerror,
            next_command="choose another place",
        ) from error
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False
