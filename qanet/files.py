"""Files written whole or not at all, their hashes, and a lock between processes.

`written` and `written_aside` are the only writers of outputs. A regular file is written under a hidden name beside its
place and renamed. Links are followed. A device, a FIFO and standard output are written to and not replaced.
"""

import contextlib
import errno
import hashlib
import io
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from qanet.errors import QanetError
from qanet.scratch import new_file, scratch_folder, short_suffix
from qanet.signals import check_stop

_POLL_S = 0.05
_LONGEST_NAME = 255  # bytes
_MAX_LINKS = 40  # as Linux
_DESCRIPTOR = re.compile(r"/proc/(?:self|\d+)/fd/(\d+)")


def sha256_bytes(data: bytes) -> str:
    """Hex digest of bytes."""
    return hashlib.sha256(data).hexdigest()


@contextlib.contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """A path to write to by name; it becomes `path` at the end, and is removed if anything fails.

    The name keeps its suffix, since many writers choose the format by it. A file that is there keeps its mode and
    owner; a new one has the mode that the umask gives. What goes to a device or a FIFO is copied at the end.

    Raises:
        QanetError: the folder or the file cannot be written, the disk is full, or `path` is a folder or a socket.
    """
    try:
        target = _target(path)
        if target is None:
            with scratch_folder() as folder:
                aside = folder / f"output{short_suffix(path)}"
                aside.touch()
                yield aside
                with _opened(path) as stream, aside.open("rb") as file:
                    shutil.copyfileobj(file, stream)
            return
        with new_file(target) as aside:
            yield aside
            with aside.open("rb+") as file:
                os.fsync(file.fileno())
            _take_over_mode(target, aside)
            os.replace(aside, target)
            _flush_folder(target.parent)
    except OSError as error:
        raise _cannot_write(path, error) from error


@contextlib.contextmanager
def written(path: Path) -> Iterator[io.RawIOBase | io.BufferedWriter]:
    """An open file that becomes `path` at the end; to a device, a FIFO or standard output it writes at once.

    Raises:
        QanetError: as `written_aside`.
    """
    try:
        is_stream = _target(path) is None
        if is_stream:
            with _opened(path) as file:
                yield file
    except OSError as error:
        raise _cannot_write(path, error) from error
    if not is_stream:
        with written_aside(path) as aside, aside.open("wb") as file:
            yield file


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file or leave the old one."""
    with written(path) as file:
        file.write(data)


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


def is_standard_output(path: Path) -> bool:
    """Whether what is written to `path` goes where standard output goes, as with /dev/stdout, and not to /dev/null."""
    try:
        found = os.stat(path)
        return os.path.samestat(found, os.fstat(1)) and not os.path.samestat(found, os.stat(os.devnull))
    except (OSError, ValueError):
        return False


def fitting_name(stem: str, suffix: str) -> str:
    """A file name of at most 255 bytes: the stem is cut where it is too long.

    >>> fitting_name("a" * 300, ".png")[-6:], len(fitting_name("é" * 200, ".png").encode())
    ('aa.png', 254)
    """
    room = _LONGEST_NAME - len(os.fsencode(suffix))
    while len(os.fsencode(stem)) > room:
        stem = stem[:-1]
    return stem + suffix


def place_of(path: Path) -> Path | None:
    """Where writing to `path` writes, links followed, also to a target that is yet to be made; None: a descriptor.

    Raises:
        QanetError: a loop of links, or a name with a NUL.
    """
    place = _place(path)
    return None if _DESCRIPTOR.fullmatch(str(place)) else place


def _place(path: Path) -> Path:
    given = path
    if "\0" in str(path):
        raise QanetError(f"bad name {str(path)!r}", expected="a name without a NUL character")
    for _ in range(_MAX_LINKS):
        path = Path(os.path.realpath(path.parent)) / path.name
        if _DESCRIPTOR.fullmatch(str(path)) or not path.is_symlink():
            return path
        path = path.parent / os.readlink(path)
    raise QanetError(f"{given} is a loop of links", expected="a file or a name for one")


def _target(path: Path) -> Path | None:
    """The regular file that writing to `path` makes or replaces; None where the data goes on to somebody else."""
    place = place_of(path)
    if place is None:
        return None
    try:
        mode = place.stat().st_mode
    except FileNotFoundError:
        return place
    if stat.S_ISREG(mode):
        if not os.access(place, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return place
    if stat.S_ISDIR(mode) or stat.S_ISSOCK(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a socket"
        raise QanetError(f"cannot write {path}", expected="a file's name", got=f"{kind} of that name")
    return None


class _Whole(io.FileIO):
    """Writes all of what it is given: a pipe may take a part."""

    def write(self, data: Any) -> int:
        """Write; returns the number of bytes."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        while rest:
            taken = super().write(rest)
            if taken is None:  # full, and somebody made it non-blocking
                time.sleep(_POLL_S)
            rest = rest[taken or 0 :]
        return size


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[_Whole]:
    """A device, a FIFO or an open descriptor; a FIFO waits for its reader, and Ctrl-C ends the wait."""
    place = _place(path)
    given = _DESCRIPTOR.fullmatch(str(place))
    if given and place.parts[2] in ("self", str(os.getpid())):
        descriptor = os.dup(int(given[1]))  # and not opened again: the place in a file is shared with other writers
    else:
        descriptor = _open_for_reader(place)
    with _Whole(descriptor, "wb") as file:
        yield file


def _open_for_reader(place: Path) -> int:
    while True:
        try:
            descriptor = os.open(place, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
            os.set_blocking(descriptor, True)
            return descriptor
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
        check_stop()
        time.sleep(_POLL_S)


def _take_over_mode(target: Path, aside: Path) -> None:
    """Give the new file the mode and owner of the one that it replaces."""
    with contextlib.suppress(FileNotFoundError):
        old = target.stat()
        with contextlib.suppress(OSError):  # only root gives files away
            os.chown(aside, old.st_uid, old.st_gid)
        aside.chmod(stat.S_IMODE(old.st_mode))


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
