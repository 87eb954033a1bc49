"""NAME.qanet/: what an artifact is, what made it, what it may run on.

manifest.json is read and checked before anything else; a file of the bundle is hashed before it is handed to a
parser. A bundle that ships inside the package is read-only: `writable_copy` makes one to build into.
"""

import json
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from qanet.errors import QanetError
from qanet.files import sha256_bytes, write_bytes, write_text
from qanet.labels import LabelSet, label_set

SCHEMA_VERSION = 1
PRECISIONS = ("fp32", "fp16", "int8")
SUFFIX = ".qanet"
SHIPPED = Path(__file__).parent / "models"
_REQUIRED = {"schema_version": int, "name": str, "labels": str, "input_hw": list, "files": dict, "graphs": dict}


@dataclass
class Bundle:
    """A folder and its checked manifest."""

    path: Path
    manifest: dict[str, Any] = field(repr=False)

    @property
    def name(self) -> str:
        return str(self.manifest["name"])

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
        return SHIPPED in self.path.resolve().parents

    def read(self, file: str) -> bytes:
        """A file's bytes, after its size and sha256 were checked against the manifest.

        Raises:
            QanetError: not in the manifest, missing, outside the bundle, or changed.
        """
        entry = self.manifest["files"].get(file)
        if entry is None:
            raise QanetError(
                f"{self.path} has no file {file!r}", expected=f"one of {', '.join(self.manifest['files'])}",
                next_command=f"qanet build {self.path}",
            )  # fmt: skip
        path = self._inside(file)
        if not path.is_file():
            raise QanetError(f"{self.path} lacks {file}, which its manifest names", got="missing")
        data = path.read_bytes()
        digest = sha256_bytes(data)
        if digest != entry["sha256"]:
            raise QanetError(
                f"{path} was changed after it was made", expected=f"sha256 {entry['sha256'][:16]}",
                got=f"{digest[:16]} of {len(data)} bytes ({entry['bytes']} in the manifest)",
                next_command="take a fresh copy of the bundle, or build the engine again with qanet build",
            )  # fmt: skip
        return data

    def graph(self, precision: str) -> bytes:
        """The ONNX graph of a precision.

        Raises:
            QanetError: the bundle has none yet.
        """
        graphs = self.manifest["graphs"]
        if precision not in graphs:
            raise QanetError(
                f"{self.path} has no {precision} graph", expected=f"one of {', '.join(graphs)}", got=precision,
                next_command=f"qanet build {self.name if self.is_shipped else self.path} --precision {precision}",
            )  # fmt: skip
        return self.read(graphs[precision])

    def add_file(self, file: str, data: bytes) -> None:
        """Write a file into the bundle and note its hash; call `save` afterwards."""
        write_bytes(self._inside(file), data)
        self.manifest["files"][file] = {"sha256": sha256_bytes(data), "bytes": len(data)}

    def add_engine(self, file: str, data: bytes, entry: dict[str, Any]) -> None:
        """Write an engine, replacing the entry of the same file."""
        self.add_file(file, data)
        others = [e for e in self.engines if e["file"] != file]
        self.manifest["engines"] = sorted([*others, {**entry, "file": file}], key=lambda e: e["file"])

    def save(self) -> None:
        """Write the manifest, last and whole."""
        text = json.dumps(self.manifest, indent=2, sort_keys=True, allow_nan=False) + "\n"
        write_text(self.path / "manifest.json", text)

    def verify(self) -> None:
        """Check every file's hash; QanetError names the first that fails."""
        for file in self.manifest["files"]:
            self.read(file)

    def _inside(self, file: str) -> Path:
        parts = PurePosixPath(file).parts
        path = self.path.joinpath(*parts)
        if not parts or PurePosixPath(file).is_absolute() or ".." in parts:
            raise QanetError(f"{self.path}: the file name {file!r} leads out of the bundle")
        if self.path.resolve() not in path.resolve().parents:
            raise QanetError(f"{self.path}: {file!r} is a link that leads out of the bundle", got=path.resolve())
        return path


def create(path: Path, **fields: Any) -> Bundle:
    """A new bundle with an empty set of files; `fields` go into the manifest. Nothing is written until `save`."""
    manifest = {"schema_version": SCHEMA_VERSION, "name": path.name.removesuffix(SUFFIX)}
    manifest |= {"files": {}, "graphs": {}, "engines": [], "accuracy": {}, "made": {}} | fields
    return Bundle(path, manifest)


def open_bundle(name_or_path: str | Path) -> Bundle:
    """Find a bundle by path, by name beside the current folder, or among the shipped ones, and check its manifest.

    Raises:
        QanetError: not found, not a bundle, of a newer schema, or with a manifest that lacks something.
    """
    path = _find(str(name_or_path))
    try:
        manifest = json.loads((path / "manifest.json").read_text())
    except (OSError, ValueError) as error:
        raise QanetError(f"{path} is not a bundle: manifest.json cannot be read", got=error) from error
    if not isinstance(manifest, dict):
        raise QanetError(f"{path}/manifest.json is not an object", got=type(manifest).__name__)
    version = manifest.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise QanetError(
            f"{path} was made by a newer qanet-edge", expected=f"schema {SCHEMA_VERSION} or older",
            got=f"schema {version}", next_command="pip install --upgrade qanet-edge",
        )  # fmt: skip
    for key, kind in _REQUIRED.items():
        if not isinstance(manifest.get(key), kind):
            got = type(manifest.get(key)).__name__
            raise QanetError(f"{path}/manifest.json: bad field {key}", expected=kind.__name__, got=got)
    defaults = {"engines": [], "accuracy": {}, "made": {}, "qam_weights": [1, 0.5, 3], "pixel_score_threshold": 0.2}
    manifest = defaults | manifest
    _check_values(path, manifest)
    return Bundle(path, manifest)


def _check_values(path: Path, manifest: dict[str, Any]) -> None:
    """QanetError naming the first field whose content could not be used later."""

    def numbers(value: Any, kinds: tuple[type, ...], count: int) -> bool:
        return isinstance(value, list) and len(value) == count and all(type(v) in kinds and v >= 0 for v in value)

    files, engines, threshold = manifest["files"], manifest["engines"], manifest["pixel_score_threshold"]
    entries = files.values()
    checks = {
        "input_hw": ("two sizes in pixels", numbers(manifest["input_hw"], (int,), 2) and min(manifest["input_hw"]) > 0),
        "files": (
            "sha256 and bytes of each",
            all(isinstance(e, dict) and {"sha256", "bytes"} <= e.keys() for e in entries),
        ),
        "graphs": ("files of the bundle", all(isinstance(f, str) and f in files for f in manifest["graphs"].values())),
        "qam_weights": (
            "three numbers",
            numbers(manifest["qam_weights"], (int, float), 3) and sum(manifest["qam_weights"]) > 0,
        ),
        "pixel_score_threshold": ("0 <= T < 1", isinstance(threshold, (int, float)) and 0 <= threshold < 1),
        "engines": (
            "file, runtime and precision of each",
            isinstance(engines, list)
            and all(isinstance(e, dict) and {"file", "runtime", "precision"} <= e.keys() for e in engines),
        ),
        "accuracy": ("an object", isinstance(manifest["accuracy"], dict)),
        "made": ("an object", isinstance(manifest["made"], dict)),
    }
    for key, (expected, right) in checks.items():
        if not right:
            got = json.dumps(manifest[key])
            raise QanetError(f"{path}/manifest.json: bad field {key}", expected=expected, got=got[:120])
    label_set(manifest["labels"])


def _find(name_or_path: str) -> Path:
    given = Path(name_or_path)
    for candidate in (
        given,
        Path(name_or_path.rstrip("/") + SUFFIX),
        SHIPPED / (given.name.removesuffix(SUFFIX) + SUFFIX),
    ):
        if candidate.is_dir() and (candidate / "manifest.json").exists():
            return candidate
        if candidate == given and given.exists():
            break  # something else lies there: say so instead of taking another bundle
    known = sorted(p.name.removesuffix(SUFFIX) for p in SHIPPED.glob(f"*{SUFFIX}"))
    raise QanetError(
        f"no bundle {name_or_path!r}", expected=f"a folder with a manifest.json, or one of: {', '.join(known)}",
        got="something else" if given.exists() else "nothing",
        next_command=f"qanet inspect {known[0]}" if known else None,
    )  # fmt: skip


def writable_copy(bundle: Bundle, output: Path | None = None) -> Bundle:
    """The bundle itself where it may be written, else a copy: at `output`, or ./NAME.qanet for a shipped one."""
    if output is None and not bundle.is_shipped:
        return bundle
    target = output or Path(bundle.name + SUFFIX)
    if not target.name.endswith(SUFFIX):
        target = target.with_name(target.name + SUFFIX)
    if target.resolve() != bundle.path.resolve():
        if (target / "manifest.json").exists():
            existing = open_bundle(target)
            if existing.manifest["files"].get("model.onnx") == bundle.manifest["files"].get("model.onnx"):
                return existing  # the same network: keep what was built before
        copy_bundle(bundle, target)
    return open_bundle(target)


def copy_bundle(bundle: Bundle, target: Path) -> None:
    """Copy the manifest and every file it names (hashes checked) into `target`, replacing what lies there."""
    foreign = target.exists() and not (target / "manifest.json").exists()
    if foreign and (not target.is_dir() or any(target.iterdir())):
        raise QanetError(f"{target} exists and is not a bundle", next_command="choose another --output")
    aside = target.with_name(f".{target.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    fresh = Bundle(aside, json.loads(json.dumps(bundle.manifest)))
    try:
        for file in bundle.manifest["files"]:
            fresh.add_file(file, bundle.read(file))
        fresh.save()
        shutil.rmtree(target, ignore_errors=True)
        aside.rename(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def safe_name(text: str) -> str:
    """`text` as part of a file name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-")
