"""Files written whole or not at all, their hashes, and a lock between processes."""

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from qanet.errors import QanetError

_POLL_S = 0.05


def sha256_bytes(data: bytes) -> str:
    """Hex digest of bytes."""
    return hashlib.sha256(data).hexdigest()


@contextlib.contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """A path in the same folder to write to; renamed to `path` at the end, removed if anything fails.

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
    """Let a library write to a path aside; its RuntimeError counts as a full disk too, since torch raises those."""
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
    """Flush a folder, so that a rename in it survives a power cut; not every file system supports the call."""
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


@contextlib.contextmanager
def locked(
    path: Path, *, timeout_s: float, doing: str, waiting: Callable[[str], object] | None = None
) -> Iterator[None]:
    """Hold an advisory lock between processes: the kernel drops it when its holder dies.

    The lock is `path`, a file that is made for it and removed after it; its text is the holder's process id.

    Args:
        timeout_s: how long to wait for another holder.
        doing: what the lock is for, as the messages say it: "building into NAME".
        waiting: called once with a line of text when another process holds the lock.
    Raises:
        QanetError: still held after `timeout_s`, or the file system cannot hold the lock.
    """
    from filelock import FileLock, Timeout

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, poll_interval=_POLL_S, on_acquired=_write_process_id)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if waiting is not None and timeout_s > 0:
                waiting(f"{doing}: waiting for process {_holder(path)}, up to {timeout_s:g} s")
            lock.acquire(timeout=timeout_s)
    except Timeout as error:
        holder = _holder(path)
        raise QanetError(
            f"{doing} must wait for process {holder}",
            expected=f"its end within {timeout_s:g} s",
            got="it still runs",
            next_command=f"wait for process {holder}, or end it, and try again",
        ) from error
    except OSError as error:
        expected = "the right to write there, and a file system with locks"
        raise QanetError(f"cannot lock {path}", expected=expected, got=error.strerror or error) from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows removes no open file; there the release does it
            path.unlink()  # while the lock is held: a process that waits for it opens a new file
        lock.release()


def _write_process_id(handle: int) -> None:
    os.ftruncate(handle, 0)
    os.write(handle, str(os.getpid()).encode())


def _holder(path: Path) -> str:
    """The process id in a lock file; "unknown" where it cannot be read."""
    try:
        return path.read_text(errors="replace")[:20] or "unknown"
    except OSError:
        return "unknown"
