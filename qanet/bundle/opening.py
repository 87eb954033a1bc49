"""Finding, creating and copying bundles."""

import re
import shutil
from pathlib import Path
from typing import Any

from qanet.bundle import folder
from qanet.bundle.folder import SUFFIX, Bundle
from qanet.bundle.manifest import SCHEMA_VERSION
from qanet.errors import QanetError


def create(path: Path, **fields: Any) -> Bundle:
    """A new bundle with an empty set of files; `fields` go into the manifest. Nothing is written until `save`."""
    manifest = {"schema_version": SCHEMA_VERSION, "name": path.name.removesuffix(SUFFIX)}
    manifest |= {"files": {}, "graphs": {}, "engines": [], "accuracy": {}, "made": {}} | {"answers": {}, "timings": []}
    manifest |= fields
    return Bundle(path, manifest)


def open_bundle(name_or_path: str | Path) -> Bundle:
    """Find a bundle by path, by name beside the current folder, or among the shipped ones, and check its manifest.

    Raises:
        QanetError: not found, not a bundle, of a newer schema, or with a manifest that lacks something.
    """
    return Bundle.of_folder(_find(str(name_or_path)))


def _find(name_or_path: str) -> Path:
    given, shipped = Path(name_or_path), folder.SHIPPED
    for candidate in (
        given,
        Path(name_or_path.rstrip("/") + SUFFIX),
        shipped / (given.name.removesuffix(SUFFIX) + SUFFIX),
    ):
        if candidate.is_dir() and (candidate / "manifest.json").exists():
            return candidate
        if candidate == given and given.exists():
            break  # something else lies there: say so instead of taking another bundle
    known = sorted(p.name.removesuffix(SUFFIX) for p in shipped.glob(f"*{SUFFIX}"))
    raise QanetError(
        f"no bundle {name_or_path!r}",
        expected=f"a folder with a manifest.json, or one of: {', '.join(known)}",
        got="something else" if given.exists() else "nothing",
        next_command=f"qanet inspect {known[0]}" if known else None,
    )


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
    aside, old = (target.with_name(f".{target.name}.{what}.partial") for what in ("new", "old"))
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


def safe_name(text: str) -> str:
    """`text` as part of a file name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-")
