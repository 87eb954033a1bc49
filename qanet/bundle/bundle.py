"""A bundle: what its manifest says, its files and graphs, and how bundles are found, created and copied."""

import copy
import re
import shlex
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.bundle.ladder import LADDER
from qanet.bundle.manifest import SCHEMA_VERSION, VIEWS, labels_of, read_manifest
from qanet.bundle.storage import path_inside, read_checked, save_files
from qanet.errors import QanetError
from qanet.files import fitting_name, locked, place_of, sha256_bytes
from qanet.geometry import CROP_SCALE, crop_boxes
from qanet.labels import LabelSet
from qanet.paths import same_file
from qanet.quality.quality_map import QualityMap, map_of

SUFFIX = ".qanet"
_COPY_TIMEOUT_S = 600.0  # another process may copy a large bundle
SHIPPED = Path(__file__).parent.parent / "models"


@dataclass
class Bundle:
    """A folder and its checked manifest.

    `add_file` and `add_engine` keep what they are given in memory until `save` writes it: a step that fails before,
    or a disk that is full, leaves the folder as it was.

    >>> bundle = open_bundle("ccp13-lite0")
    >>> bundle.labels.name, bundle.input_hw, bundle.qam_weights, bundle.threshold
    ('ccp13', (384, 288), (1.0, 0.5, 3.0), 0.2)
    """

    path: Path
    manifest: dict[str, Any] = field(repr=False)
    _staged: dict[str, bytes] = field(default_factory=dict, init=False, repr=False)
    _base: dict[str, Any] | None = field(default=None, init=False, repr=False)  # the manifest as it was read or saved

    @classmethod
    def of_folder(cls, path: Path) -> "Bundle":
        """The bundle in a folder; QanetError as `read_manifest`."""
        bundle = cls(path, read_manifest(path))
        bundle._base = copy.deepcopy(bundle.manifest)
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
        """The classes: the bundle's own record of them, or in an older bundle the built-in set of that name."""
        return labels_of(self.manifest)

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
    def view(self) -> str:
        """What the network was trained on: "person", crops of people, or "whole" pictures."""
        return str(self.manifest.get("view", VIEWS[0]))

    def crop_boxes(
        self, boxes: NDArray[np.float32], image_hw: tuple[int, int], scale: float = CROP_SCALE
    ) -> NDArray[np.float32]:
        """What the network gets of each person, (N, 4) xyxy pixels: the grown box, or the whole picture.

        Args:
            boxes: (N, 4) xyxy pixels of the people.
            image_hw: (H, W) pixels of their picture.
            scale: by which a box is grown beside the crop's aspect.
        """
        if self.view == VIEWS[0]:
            return crop_boxes(boxes, self.input_hw, scale)
        whole = np.array([0, 0, image_hw[1], image_hw[0]], np.float32)
        return np.tile(whole, (len(boxes), 1))

    @property
    def quality_of(self) -> str:
        """The scores that Q is made of, in words."""
        parts = [name for name, w in zip(("box", "predicted IoU", "pixel score"), self.qam_weights) if w]
        return " and ".join([", ".join(parts[:-1]), parts[-1]] if parts[1:] else parts)

    @property
    def threshold(self) -> float:
        """T of the pixel score."""
        return float(self.manifest["pixel_score_threshold"])

    def quality_map(self, graph: str) -> QualityMap | None:
        """What turns the scores of a graph ("fp32", "int8", ...) into expected IoUs; None where none was fitted.

        Raises:
            QanetError: a map that cannot be used.
        """
        return map_of(self.manifest.get("quality_map", {}), graph)

    @property
    def engines(self) -> list[dict[str, Any]]:
        """Built engines: runtime, version, precision, targets, file, census."""
        return self.manifest["engines"]

    @property
    def is_shipped(self) -> bool:
        """Whether it lies inside the installed package, where nothing is written."""
        return SHIPPED.resolve() in self.path.resolve().parents  # the package may be installed as links

    def read(self, file: str) -> bytes:
        """A file's bytes, after its sha256 was checked against the manifest.

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
        return self._staged[file] if file in self._staged else read_checked(self.path, file, entry)

    def stored_graph(self, precision: str) -> bytes:
        """The ONNX graph of a precision as it is stored: an FP32 one may have FP16 weights, cast by its nodes. Runtimes
        fold the casts; code that writes another graph from it needs `graph`.

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
        """The ONNX graph of a precision, with FP32 weights where it is stored with FP16 ones.

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
        path_inside(self.path, file)
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
        """Write what was added, then the manifest; all of it or nothing. Other processes' changes are kept.

        Raises:
            QanetError: no room, no right to write, or another process saves for more than a minute.
        """
        self.manifest = save_files(self.path, self.manifest, self._staged, self._base)
        self._staged.clear()
        self._base = copy.deepcopy(self.manifest)

    def verify(self) -> None:
        """Check every file's hash; QanetError names the first that fails."""
        for file in self.manifest["files"]:
            self.read(file)


def open_bundle(name_or_path: str | Path) -> Bundle:
    """Find a bundle by path, by name in the current folder, or among the shipped ones, and check its manifest.

    Raises:
        QanetError: not found, not a bundle, of a newer schema, or with a manifest that lacks something.

    >>> open_bundle("ccp13-lite0").labels.num_classes
    13
    """
    return Bundle.of_folder(_find(str(name_or_path)))


def new_folder(output: Path | str) -> Path:
    """The folder to write a bundle to, with its suffix; QanetError where something else lies there.

    >>> new_folder("mine").name
    'mine.qanet'
    """
    output = Path(output)
    output = output if output.name.endswith(SUFFIX) else output.with_name(output.name + SUFFIX)
    if output.exists() and not (output / "manifest.json").exists() and any(output.iterdir()):
        raise QanetError(f"{output} exists and is not a bundle", next_command="choose another --output")
    return output


def create(path: Path, **fields: Any) -> Bundle:
    """A new bundle with an empty set of files; `fields` go into the manifest. Nothing is written until `save`.

    >>> bundle = create(Path("mine.qanet"), labels="ccp13", input_hw=[256, 192], graphs={"fp32": "model.onnx"})
    >>> bundle.add_file("model.onnx", b"an ONNX graph")
    >>> bundle.save()
    >>> open_bundle("mine").read("model.onnx")
    b'an ONNX graph'
    """
    manifest = {"schema_version": SCHEMA_VERSION, "name": path.name.removesuffix(SUFFIX)}
    manifest |= {"files": {}, "graphs": {}, "engines": [], "accuracy": {}, "made": {}, "answers": {}, "timings": []}
    manifest |= {"quality_map": {}, "view": VIEWS[0]}
    manifest |= fields
    return Bundle(path, manifest)


def copy_bundle(bundle: Bundle, target: Path) -> None:
    """Copy the manifest and every file it names (hashes checked) into `target`, replacing a bundle there.

    >>> copy_bundle(open_bundle("ccp13-lite0"), Path("copy.qanet"))
    >>> open_bundle("copy").is_shipped
    False
    """
    foreign = target.exists() and not (target / "manifest.json").exists()
    if foreign and (not target.is_dir() or any(target.iterdir())):
        raise QanetError(f"{target} exists and is not a bundle", next_command="choose another --output")
    target = place_of(target) or target  # a link stays
    aside, old = (_beside(target, what) for what in ("new", "old"))
    if old.exists() and not target.exists():  # a copy was killed between its two renames
        old.rename(target)
    for leftover in (aside, old):
        shutil.rmtree(leftover, ignore_errors=True)
    fresh = Bundle(aside, {**bundle.manifest, "files": dict(bundle.manifest["files"])})
    try:
        for file in bundle.manifest["files"]:
            fresh.add_file(file, bundle.read(file))
        fresh.save()
        if target.exists():
            target.rename(old)
        aside.rename(target)
    except BaseException:
        if old.exists() and not target.exists():
            old.rename(target)
        raise
    finally:
        for leftover in (aside, old):
            shutil.rmtree(leftover, ignore_errors=True)


def writable_copy(bundle: Bundle, output: Path | None = None) -> Bundle:
    """The bundle itself where it may be written, else a copy: at `output`, or ./NAME.qanet for a shipped one.

    >>> writable_copy(open_bundle("ccp13-lite0")).path.as_posix()
    'ccp13-lite0.qanet'
    """
    if output is None and not bundle.is_shipped:
        return bundle
    target = output or Path(bundle.name + SUFFIX)
    if not target.name.endswith(SUFFIX):
        target = target.with_name(target.name + SUFFIX)
    if same_file(target, bundle.path):
        return open_bundle(target)
    with locked(_beside(target, "lock"), timeout_s=_COPY_TIMEOUT_S, doing=f"copying into {target}"):
        if (target / "manifest.json").exists():
            existing = open_bundle(target)
            if existing.manifest["files"].get("model.onnx") == bundle.manifest["files"].get("model.onnx"):
                return existing  # the same network: keep what was built before
        copy_bundle(bundle, target)
        return open_bundle(target)


def _beside(target: Path, what: str) -> Path:
    """A hidden name beside a bundle; a copy that was killed leaves it, and the next copy takes it."""
    return target.with_name(fitting_name(f".{target.name}", f".{what}.partial"))


def safe_name(text: str) -> str:
    """`text` as part of a file name.

    >>> safe_name("RTX 4090 + sm_89")
    'RTX-4090-sm_89'
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-")


def _find(name_or_path: str) -> Path:
    given = Path(name_or_path)
    name = LADDER[name_or_path].bundle if name_or_path in LADDER else given.name.removesuffix(SUFFIX)
    shipped = SHIPPED / (name + SUFFIX)
    for candidate in (given, Path(name_or_path.rstrip("/") + SUFFIX), shipped):
        if candidate.is_dir() and (candidate / "manifest.json").exists():
            return candidate
        if candidate == given and given.exists():
            break  # something else is there: say so instead of taking another bundle
    known = sorted(p.name.removesuffix(SUFFIX) for p in SHIPPED.glob(f"*{SUFFIX}"))
    raise QanetError(
        f"no bundle {name_or_path!r}",
        expected=f"a folder with a manifest.json, or one of: {', '.join([*LADDER, *known])}",
        got="something else" if given.exists() else "nothing",
        next_command=f"qanet inspect {known[0]}" if known else None,
    )
