"""A bundle folder: its files are read after their hashes were checked and written all at once, or not at all."""

import contextlib
import json
import os
import shlex
import time
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from qanet.bundle.manifest import manifest_text, merge, read_manifest
from qanet.errors import QanetError
from qanet.files import check_room, locked, sha256_bytes, written_aside
from qanet.labels import LabelSet, label_set

SUFFIX = ".qanet"
SHIPPED = Path(__file__).parent.parent / "models"
_LOCK = ".manifest.lock"
_READ_TIMEOUT_S = 5.0  # between the renames of a save lie milliseconds
_SAVE_TIMEOUT_S = 60.0  # a save takes as long as writing its files does


@dataclass
class Bundle:
    """A folder and its checked manifest.

    `add_file` and `add_engine` keep what they are given in memory until `save` writes it: a step that fails before,
    or a disk that is full, leaves the folder as it was.
    """

    path: Path
    manifest: dict[str, Any] = field(repr=False)
    _staged: dict[str, bytes] = field(default_factory=dict, init=False, repr=False)
    _base: dict[str, Any] | None = field(default=None, init=False, repr=False)  # the manifest as it was read or saved

    @classmethod
    def of_folder(cls, path: Path) -> "Bundle":
        """The bundle in a folder; QanetError as `read_manifest`."""
        manifest = read_manifest(path)
        bundle = cls(path, manifest)
        bundle._base = _copy(manifest)
        return bundle

    @property
    def name(self) -> str:
        return str(self.manifest["name"])

    @property
    def shell_name(self) -> str:
        """What to type for it in a shell."""
        return shlex.quote(self.name if self.is_shipped else str(self.path))

    @property
    def labels(self) -> LabelSet:
        return label_set(self.manifest["labels"])

    @property
    def input_hw(self) -> tuple[int, int]:
        """Crop size (H, W) pixels."""
        height, width = self.manifest["input_hw"]
        return int(height), int(width)

    @property
    def qam_weights(self) -> tuple[float, float, float]:
        """Exponents of box, IoU and pixel score."""
        a, b, g = self.manifest["qam_weights"]
        return float(a), float(b), float(g)

    @property
    def threshold(self) -> float:
        """T of the pixel score."""
        return float(self.manifest["pixel_score_threshold"])

    @property
    def engines(self) -> list[dict[str, Any]]:
        """Built engines: runtime, version, precision, targets, file, census."""
        return self.manifest["engines"]

    @property
    def is_shipped(self) -> bool:
        """Whether it lies inside the installed package, where nothing is written."""
        return SHIPPED.resolve() in self.path.resolve().parents  # the package may be installed as links

    def read(self, file: str) -> bytes:
        """A file's bytes, after its size and sha256 were checked against the manifest.

        Raises:
            QanetError: not in the manifest, missing, outside the bundle, or changed.
        """
        entry = self.manifest["files"].get(file)
        if entry is None:
            raise QanetError(
                f"{self.path} has no file {file!r}",
                expected=f"one of {', '.join(self.manifest['files'])}",
                next_command=f"qanet build {self.path}",
            )
        if file in self._staged:
            return self._staged[file]
        path = self._inside(file)
        if not path.is_file():
            raise QanetError(
                f"{self.path} lacks {file}, which its manifest names", got="missing", next_command=_mend(file)
            )
        data = path.read_bytes()
        digest = sha256_bytes(data)
        if digest != entry["sha256"]:
            written = self._written_meanwhile(path, file)
            if written is not None:
                return written
            raise QanetError(
                f"{path} was changed after it was made",
                expected=f"sha256 {entry['sha256'][:16]}",
                got=f"{digest[:16]} of {len(data)} bytes ({entry['bytes']} in the manifest)",
                next_command=_mend(file),
            )
        return data

    def stored_graph(self, precision: str) -> bytes:
        """The ONNX graph of a precision as it is kept: an FP32 one may have FP16 weights, cast by its nodes. Runtimes
        fold that; whoever writes another graph from it wants `graph`.

        Raises:
            QanetError: the bundle has none yet.
        """
        graphs = self.manifest["graphs"]
        if precision not in graphs:
            raise QanetError(
                f"{self.path} has no {precision} graph",
                expected=f"one of {', '.join(graphs)}",
                got=precision,
                next_command=f"qanet build {self.shell_name} --precision {precision}",
            )
        return self.read(graphs[precision])

    def graph(self, precision: str) -> bytes:
        """The ONNX graph of a precision; one that is kept with FP16 weights is given with FP32 ones.

        Raises:
            QanetError: the bundle has none yet.
        """
        data = self.stored_graph(precision)
        if precision == "fp32" and self.manifest["made"].get("weights") == "fp16":
            from qanet.bundle.half_weights import with_float_weights

            return with_float_weights(data)
        return data

    def add_file(self, file: str, data: bytes) -> None:
        """Take a file into the bundle and note its hash; `save` writes it."""
        self._inside(file)
        self._staged[file] = data
        self.manifest["files"][file] = {"sha256": sha256_bytes(data), "bytes": len(data)}

    def add_engine(self, file: str, data: bytes, entry: dict[str, Any]) -> None:
        """Take an engine, replacing the entry of the same file.

        An entry with `graph_sha256`, the hash of the graph it was built from, leaves the bundle with that graph: an
        engine of older weights or older scales is never run.
        """
        self.add_file(file, data)
        others = [e for e in self.engines if e["file"] != file]
        self.manifest["engines"] = sorted([*others, {**entry, "file": file}], key=lambda e: e["file"])

    def save(self) -> None:
        """Write what was added, then the manifest; all of it or nothing.

        Everything is written aside and flushed to the disk before the first file is renamed, the manifest is renamed
        last. What other processes saved since this one read the manifest is kept.

        Raises:
            QanetError: no room, no right to write, or another process saves for more than a minute.
        """
        check_room(self.path, sum(map(len, self._staged.values())) + (1 << 16))
        with locked(self.path / _LOCK, timeout_s=_SAVE_TIMEOUT_S, doing=f"saving {self.path}"):
            old = read_manifest(self.path) if (self.path / "manifest.json").is_file() else None
            if old is not None and self._base is not None and old != self._base:
                self.manifest = merge(self._base, self.manifest, old)
            self._drop_stale_engines()
            with contextlib.ExitStack() as renames:  # left in reverse: the manifest, entered first, is renamed last
                texts = {"manifest.json": manifest_text(self.manifest).encode(), **self._staged}
                for file, data in texts.items():
                    if file == "manifest.json" or file in self.manifest["files"]:
                        aside = renames.enter_context(written_aside(self._inside(file)))
                        _write_through(aside, data)
            self._remove([file for file in (old or {}).get("files", ()) if file not in self.manifest["files"]])
            self._staged.clear()
            self._base = _copy(self.manifest)

    def verify(self) -> None:
        """Check every file's hash; QanetError names the first that fails."""
        for file in self.manifest["files"]:
            self.read(file)

    def _drop_stale_engines(self) -> None:
        """Engines of a graph that is no longer the bundle's, and files of engines that are no longer listed."""
        files, graphs = self.manifest["files"], self.manifest["graphs"]
        current = {graph: files.get(file, {}).get("sha256") for graph, file in graphs.items()}
        engines = [
            e for e in self.engines if e.get("graph_sha256") in (None, current.get(e.get("graph", e["precision"])))
        ]
        self.manifest["engines"] = engines
        known = {e["file"] for e in engines}
        self.manifest["files"] = {f: e for f, e in files.items() if not f.startswith("engines/") or f in known}

    def _written_meanwhile(self, path: Path, file: str) -> bytes | None:
        """The file by the manifest that lies on the disk now: another process may have saved since this one opened."""
        deadline = time.monotonic() + _READ_TIMEOUT_S
        while True:
            saving = (self.path / _LOCK).exists()  # asked first: what was saved before this is in the manifest
            entry = None
            with contextlib.suppress(QanetError, OSError):
                entry, data = read_manifest(self.path)["files"].get(file), path.read_bytes()
                if entry is not None and sha256_bytes(data) == entry["sha256"]:
                    return data
            if time.monotonic() > deadline:
                return None
            if not saving and not (self.path / _LOCK).exists():  # nor did a save begin, or pass, between the two reads
                with contextlib.suppress(QanetError, OSError):
                    if read_manifest(self.path)["files"].get(file) == entry:
                        return None
            time.sleep(0.02)

    def _remove(self, files: list[str]) -> None:
        for file in files:
            with contextlib.suppress(OSError, QanetError):  # a leftover that no manifest names does no harm
                self._inside(file).unlink()

    def _inside(self, file: str) -> Path:
        parts = PurePosixPath(file).parts
        path = self.path.joinpath(*parts)
        if not parts or PurePosixPath(file).is_absolute() or ".." in parts:
            raise QanetError(f"{self.path}: the file name {file!r} leads out of the bundle")
        if self.path.resolve() not in path.resolve().parents:
            raise QanetError(f"{self.path}: {file!r} is a link that leads out of the bundle", got=path.resolve())
        return path


def _mend(file: str) -> str:
    fresh = "take a fresh copy of the bundle"
    return f"{fresh}, or build the engine again with qanet build" if file.startswith("engines/") else fresh


def _copy(manifest: dict[str, Any]) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(manifest))
    return copy


def _write_through(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
