"""Temporary files and folders: locked while their process lives, so that the next run removes those of a killed one."""

import contextlib
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows removes nothing that is open, so nothing is locked or left there
    fcntl = None  # type: ignore[assignment]

_FILE, _FOLDER = ".qanet-", "qanet-scratch-"  # the names of temporary things, and of nothing else, start so
_LONGEST_SUFFIX = 16  # bytes
_LEFTOVER = re.compile(r"\.qanet-[0-9a-f]{12}(\..{0,15})?|qanet-scratch-\w{8}")
_swept: set[str] = set()  # folders without leftovers


def short_suffix(path: Path) -> str:
    """The suffix of a path; none where it is so long that it names no format."""
    return path.suffix if len(os.fsencode(path.suffix)) <= _LONGEST_SUFFIX else ""


@contextlib.contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """An empty file beside `target`, with its suffix; removed at the end unless it was renamed. The umask is honoured.

    Raises:
        OSError: the folder cannot be made or written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(target.parent)
    made, handle = target, -1
    try:
        while handle < 0:
            made = target.with_name(f"{_FILE}{secrets.token_hex(6)}{short_suffix(target)}")
            handle = _kept(made, os.open(made, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666))
        if fcntl is None:
            os.close(handle)
        yield made
    finally:
        if made != target:
            made.unlink(missing_ok=True)
        if handle >= 0 and fcntl is not None:
            os.close(handle)


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder of this process for temporary files, removed at the end."""
    root = Path(tempfile.gettempdir())
    remove_leftovers(root)
    handle, folder = -1, root
    try:
        while handle < 0:
            folder = Path(tempfile.mkdtemp(prefix=_FOLDER))
            if fcntl is None:
                break
            handle = _kept(folder, os.open(folder, os.O_RDONLY))
        yield folder
    finally:
        if folder != root:
            shutil.rmtree(folder, ignore_errors=True)
        if handle >= 0:
            os.close(handle)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left in a folder, once in the life of this process."""
    if fcntl is None or str(folder) in _swept:
        return
    _swept.add(str(folder))
    for path in (*folder.glob(f"{_FILE}*"), *folder.glob(f"{_FOLDER}*")):
        if not _LEFTOVER.fullmatch(path.name):
            continue
        with contextlib.suppress(OSError):
            is_folder = path.is_dir()
            handle = os.open(path, (os.O_RDONLY if is_folder else os.O_RDWR) | os.O_NOFOLLOW)
            try:
                if os.fstat(handle).st_uid == os.geteuid() and _lock(handle):
                    shutil.rmtree(path) if is_folder else path.unlink()
            finally:
                os.close(handle)


def _kept(path: Path, handle: int) -> int:
    """Lock what was just made; -1, and `handle` closed, if another process took it for a leftover before."""
    with contextlib.suppress(OSError):  # a file system without locks
        if not _lock(handle) or not _is_there(path, handle):
            os.close(handle)
            return -1
    return handle


def _lock(handle: int) -> bool:
    """Lock an open file or folder until it is closed; False if another process has locked it."""
    if fcntl is not None:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def _is_there(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False
