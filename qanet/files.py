"""Files written whole or not at all, and their hashes."""

import contextlib
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from qanet.errors import QanetError


def sha256_bytes(data: bytes) -> str:
    """Hex digest of bytes."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex digest of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


@contextlib.contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; renamed onto it at the end, removed if anything fails.

    The name keeps its suffix, since many writers choose the format by it.

    Raises:
        QanetError: the folder cannot be written or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    except OSError as error:
        raise _cannot_write(path, error) from error
    os.close(handle)
    aside = Path(name)
    try:
        yield aside
        with aside.open("rb+") as file:
            os.fsync(file.fileno())
        aside.chmod(0o644)
        os.replace(aside, path)
        _flush_folder(path.parent)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        aside.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file or leave the old one."""
    with written_aside(path) as aside:
        aside.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write a whole UTF-8 file or leave the old one."""
    write_bytes(path, text.encode())


def write_by(path: Path, writer: Callable[[str], object]) -> None:
    """Let a library write to a path aside; its RuntimeError counts as a full disk too (torch raises those)."""
    with written_aside(path) as aside:
        try:
            writer(str(aside))
        except RuntimeError as error:
            raise _cannot_write(path, error) from error


def check_room(folder: Path, needed_bytes: int) -> None:
    """QanetError when the disk under `folder` has fewer than `needed_bytes` free."""
    existing = folder
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if free < needed_bytes:
        raise QanetError(
            f"no room to write into {folder}",
            expected=f"{needed_bytes / 2**20:.0f} MiB free",
            got=f"{free / 2**20:.0f} MiB",
            next_command="free some space or choose another --output",
        )


def _flush_folder(folder: Path) -> None:
    """A rename outlives a power cut once its folder is on the disk; not every file system takes the call."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _cannot_write(path: Path, error: Exception) -> QanetError:
    return QanetError(
        f"could not write {path}",
        expected="room on the disk and the right to write",
        got=getattr(error, "strerror", None) or error,
        next_command="free some space or choose another place",
    )


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
