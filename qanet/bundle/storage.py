"""The files of a bundle folder: read after their hashes were checked, and written all at once or not at all."""

import contextlib
import os
import time
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from qanet.bundle.manifest import manifest_text, merge, read_manifest
from qanet.errors import QanetError
from qanet.files import check_room, locked, sha256_bytes, written_aside

_LOCK = ".manifest.lock"
_READ_TIMEOUT_S = 5.0  # between the renames of a save lie milliseconds
_SAVE_TIMEOUT_S = 60.0  # a save takes as long as writing its files does


def path_inside(folder: Path, file: str) -> Path:
    """Where a file of the bundle lies; QanetError for a name or a link that leads out of the folder."""
    parts = PurePosixPath(file).parts
    path = folder.joinpath(*parts)
    if not parts or PurePosixPath(file).is_absolute() or ".." in parts:
        raise QanetError(f"{folder}: the file name {file!r} leads out of the bundle")
    if folder.resolve() not in path.resolve().parents:
        raise QanetError(f"{folder}: {file!r} is a link that leads out of the bundle", got=path.resolve())
    return path


def read_checked(folder: Path, file: str, entry: Mapping[str, Any]) -> bytes:
    """A file's bytes, after their sha256 was compared with its entry in the manifest.

    Raises:
        QanetError: missing, outside the bundle, or changed.
    """
    path = path_inside(folder, file)
    if not path.is_file():
        raise QanetError(f"{folder} lacks {file}, which its manifest names", got="missing", next_command=_mend(file))
    data = path.read_bytes()
    digest = sha256_bytes(data)
    if digest != entry["sha256"]:
        written = _written_meanwhile(folder, path, file)
        if written is not None:
            return written
        raise QanetError(
            f"{path} was changed after it was made",
            expected=f"sha256 {entry['sha256'][:16]}",
            got=f"{digest[:16]} of {len(data)} bytes ({entry['bytes']} in the manifest)",
            next_command=_mend(file),
        )
    return data


def save_files(
    folder: Path, manifest: dict[str, Any], staged: Mapping[str, bytes], base: dict[str, Any] | None
) -> dict[str, Any]:
    """Write files, then the manifest; all of it or nothing.

    Everything is written aside and flushed to the disk before the first file is renamed; the manifest is renamed last.
    What other processes saved meanwhile is kept, and engines of graphs that are no longer the bundle's are dropped.

    Args:
        manifest: as it is to be saved.
        staged: the new files' bytes by their names.
        base: the manifest as it was read or last saved; None for a new bundle.
    Returns:
        The manifest as it was saved.
    Raises:
        QanetError: no room, no right to write, or another process saves for more than a minute.
    """
    check_room(folder, sum(map(len, staged.values())) + (1 << 16))
    with locked(folder / _LOCK, timeout_s=_SAVE_TIMEOUT_S, doing=f"saving {folder}"):
        old = read_manifest(folder) if (folder / "manifest.json").is_file() else None
        if old is not None and base is not None and old != base:
            manifest = merge(base, manifest, old)
        manifest = _without_stale_engines(manifest)
        files = {file: data for file, data in staged.items() if file in manifest["files"]}
        with contextlib.ExitStack() as renames:  # left in reverse: the manifest, entered first, is renamed last
            for file, data in {"manifest.json": manifest_text(manifest).encode(), **files}.items():
                aside = renames.enter_context(written_aside(path_inside(folder, file)))
                with aside.open("wb") as handle:
                    handle.write(data)
                    handle.flush()
                    os.fsync(handle.fileno())
        for file in (old or {}).get("files", ()):
            if file not in manifest["files"]:
                with contextlib.suppress(OSError, QanetError):  # a leftover that no manifest names does no harm
                    path_inside(folder, file).unlink()
    return manifest


def _without_stale_engines(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest without engines of a graph that is no longer the bundle's, and without files of no engine."""
    files, graphs = manifest["files"], manifest["graphs"]
    current = {graph: files.get(file, {}).get("sha256") for graph, file in graphs.items()}
    engines = [
        engine
        for engine in manifest["engines"]
        if engine.get("graph_sha256") in (None, current.get(engine.get("graph", engine["precision"])))
    ]
    known = {engine["file"] for engine in engines}
    kept = {file: entry for file, entry in files.items() if not file.startswith("engines/") or file in known}
    return {**manifest, "engines": engines, "files": kept}


def _written_meanwhile(folder: Path, path: Path, file: str) -> bytes | None:
    """The file as the manifest on the disk has it now: another process may have saved since this one opened."""
    deadline = time.monotonic() + _READ_TIMEOUT_S
    while True:
        is_saving = (folder / _LOCK).exists()  # asked first: what was saved before this is in the manifest
        entry = None
        with contextlib.suppress(QanetError, OSError):
            entry, data = read_manifest(folder)["files"].get(file), path.read_bytes()
            if entry is not None and sha256_bytes(data) == entry["sha256"]:
                return data
        if time.monotonic() > deadline:
            return None
        if not is_saving and not (folder / _LOCK).exists():  # no save began, or passed, between the two reads
            with contextlib.suppress(QanetError, OSError):
                if read_manifest(folder)["files"].get(file) == entry:
                    return None
        time.sleep(0.02)


def _mend(file: str) -> str:
    fresh = "take a fresh copy of the bundle"
    return f"{fresh}, or build the engine again with qanet build" if file.startswith("engines/") else fresh
