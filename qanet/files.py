"""Files written whole or not at all, and their hashes."""

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

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
