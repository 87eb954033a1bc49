"""manifest.json: its schema, the check on reading, and the merge of two writers' changes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qanet.errors import QanetError
from qanet.labels import LabelSet, label_set
from qanet.quality.quality_map import QualityMap

SCHEMA_VERSION = 1
PRECISIONS = ("fp32", "fp16", "int8")
OPTIONAL_PRECISIONS = ("bf16", "fp8")  # built on demand: not every processor has them
VIEWS = ("person", "whole")  # what a parsing network was trained on: crops of people, or whole pictures
NO_VNNI = "int8-no-vnni"  # the INT8 graph for CPUs without VNNI: neighbouring weights share their range
_REQUIRED = {"schema_version": int, "name": str, "labels": str, "input_hw": list, "files": dict, "graphs": dict}
_DEFAULTS: dict[str, Any] = {
    "engines": [],
    "accuracy": {},
    "made": {},
    "answers": {},
    "timings": [],
    "quality_map": {},
    "qam_weights": [1, 0.5, 3],
    "pixel_score_threshold": 0.2,
    "view": VIEWS[0],
}


def read_manifest(folder: Path) -> dict[str, Any]:
    """The checked manifest of a bundle folder.

    Raises:
        QanetError: none that can be read, of a newer schema, or with a field that could not be used.
    """
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise QanetError(f"{folder} is not a bundle: manifest.json cannot be read", got=error) from error
    if not isinstance(manifest, dict):
        raise QanetError(f"{path} is not an object", got=type(manifest).__name__)
    version = manifest.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise QanetError(
            f"{folder} was made by a newer qanet-edge",
            expected=f"schema {SCHEMA_VERSION} or older",
            got=f"schema {version}",
            next_command="pip install --upgrade qanet-edge",
        )
    for key, kind in _REQUIRED.items():
        if not isinstance(manifest.get(key), kind):
            got = type(manifest.get(key)).__name__
            raise QanetError(f"{path}: bad field {key}", expected=kind.__name__, got=got)
    manifest = json.loads(json.dumps(_DEFAULTS)) | manifest
    _check_values(path, manifest)
    return manifest


def manifest_text(manifest: dict[str, Any]) -> str:
    """The one way a manifest is written: the same content gives the same bytes."""
    return json.dumps(manifest, indent=2, sort_keys=True, allow_nan=False) + "\n"


def merge(base: dict[str, Any], ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """`theirs` with every change that `ours` made since `base`; where both changed a value, ours holds."""
    merged = dict(theirs)
    for key in base.keys() | ours.keys():
        if key not in ours:
            merged.pop(key, None)
        elif key not in base or ours[key] != base[key]:
            sides = [_as_dict(side.get(key)) for side in (base, ours, theirs)]
            merged[key] = ours[key]
            if None not in sides:
                united = merge(*sides)  # type: ignore[arg-type]
                merged[key] = [united[file] for file in sorted(united)] if key == "engines" else united
    return merged


def _as_dict(value: Any) -> dict[str, Any] | None:
    """A dict as it is, the list of engines by their files, None for all else."""
    if isinstance(value, list) and all(isinstance(entry, dict) and "file" in entry for entry in value):
        return {entry["file"]: entry for entry in value}
    return value if isinstance(value, dict) else None


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
        "engines": ("file, runtime and precision of each", isinstance(engines, list) and all(map(_is_engine, engines))),
        "accuracy": ("an object", isinstance(manifest["accuracy"], dict)),
        "answers": ("a file, its graphs and tolerances", _are_answers(manifest["answers"])),
        "timings": (
            "runtime, version, device, outputs and least_ms of each",
            isinstance(manifest["timings"], list) and all(map(_is_timing, manifest["timings"])),
        ),
        "made": ("an object", isinstance(manifest["made"], dict)),
        "view": (" or ".join(VIEWS), manifest["view"] in VIEWS),
        "quality_map": ("a map of each graph", _are_quality_maps(manifest["quality_map"])),
    }
    for key, (expected, right) in checks.items():
        if not right:
            got = json.dumps(manifest[key])
            raise QanetError(f"{path}: bad field {key}", expected=expected, got=got[:120])
    labels_of(manifest, str(path))


def labels_of(manifest: Mapping[str, Any], where: str = "manifest.json") -> LabelSet:
    """The label set of a manifest: `label_set`, or the built-in set that `labels` names.

    Raises:
        QanetError: neither, or a label set of another name.
    """
    if manifest.get("label_set") is None:
        return label_set(manifest["labels"])
    labels = LabelSet.of_document(manifest["label_set"], f"{where}: label_set")
    if labels.name != manifest["labels"]:
        raise QanetError(f"{where}: bad field label_set", expected=f"the set {manifest['labels']}", got=labels.name)
    return labels


def _are_quality_maps(value: Any) -> bool:
    """Graph -> what `qanet.quality.quality_map` reads."""
    try:
        return isinstance(value, dict) and all(QualityMap.from_json(entry) for entry in value.values())
    except QanetError:
        return False


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _is_engine(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and {"file", "runtime", "precision"} <= value.keys()
        and _are_names(value.get("outputs", []))
        and isinstance(value.get("hint", ""), (str, type(None)))
    )


def _is_timing(value: Any) -> bool:
    """Which runtime on which device, and graph -> milliseconds that were measured there."""
    return (
        isinstance(value, dict)
        and all(isinstance(value.get(key), str) for key in ("runtime", "version", "device"))
        and _are_names(value.get("outputs"))
        and isinstance(value.get("least_ms"), dict)
        and all(type(ms) in (int, float) and 0 < ms < 1e9 for ms in value["least_ms"].values())
    )


def _are_answers(value: Any) -> bool:
    """Nothing, or the known answers' file, what each graph's follow from, and the limits of each precision."""
    if not isinstance(value, dict) or not value:
        return isinstance(value, dict)
    limits = value.get("tolerances")
    return (
        isinstance(value.get("file"), str)
        and isinstance(value.get("of"), dict)
        and isinstance(limits, dict)
        and all(isinstance(v, dict) and {"map", "score", "label", "box"} <= v.keys() for v in limits.values())
        and all(type(number) in (int, float) for v in limits.values() for number in v.values())
    )
