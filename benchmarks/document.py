"""results.json: everything that was measured and what it was measured on, as plain data.

Schema 1. `targets` holds one entry a target with its raw samples; `comparison` one entry a precision, put together
from the targets, the agreement on this input and the bundle's accuracy card; `stages` the parts of the whole-parser
target. What was not measured is null or absent.
"""

import datetime
import json
from pathlib import Path
from typing import Any

from qanet._version import __version__
from qanet.benchmarks.harness import Measurement, Session
from qanet.benchmarks.samples import SampleSet
from qanet.benchmarks.statistics import per_second, summarize
from qanet.benchmarks.targets import NOT_TIMED, TIMED
from qanet.bundle import Bundle
from qanet.errors import QanetError

SCHEMA_VERSION = 1
SCORE_KEYS = ("miou", "pixel_accuracy")
_MANIFEST_KEYS = ("name", "labels", "input_hw", "qam_weights", "pixel_score_threshold", "graphs", "made", "files")


def describe_bundle(bundle: Bundle) -> dict[str, Any]:
    """What of the manifest belongs into a report; an engine's census without its list of layers, but with its size."""
    described = {key: bundle.manifest[key] for key in _MANIFEST_KEYS if key in bundle.manifest}
    described["classes"] = list(bundle.labels.classes)
    described["accuracy"] = bundle.manifest["accuracy"]
    described["engines"] = []
    for entry in bundle.engines:
        census = {key: value for key, value in (entry.get("census") or {}).items() if key != "compute"}
        size = bundle.manifest["files"].get(entry.get("file"), {}).get("bytes")
        described["engines"].append({**entry, "census": census or None, "bytes": size})
    return described


def describe_input(samples: SampleSet, name: str) -> dict[str, Any]:
    """The input and the people found in it."""
    sizes = sorted({sample.image.shape[:2] for sample in samples.samples})
    return {
        "name": name, "kind": samples.kind, "detector": samples.detector, "frames": samples.frames,
        "frames_with_people": len(samples.samples), "people": samples.people,
        "people_per_frame": round(samples.mean_people, 3), "image_sizes_hw": [list(size) for size in sizes],
        "decode_ms": summarize(samples.decode_ms), "detect_ms": summarize(samples.detect_ms),
    }  # fmt: skip


def describe_target(measurement: Measurement) -> dict[str, Any]:
    """One target's figures and raw samples (milliseconds)."""
    target, samples = measurement.target, measurement.samples_ms
    status = "failed" if measurement.error else "measured" if samples else "not measured"
    return {
        "name": target.name, "kind": target.kind, "precision": target.precision or None,
        "runtime": target.runtime or None, "batch": round(target.batch, 3), "status": status,
        "error": measurement.error, "warmup_calls": measurement.warmup_calls,
        "warmup_stable": measurement.warmup_stable, "latency_ms": summarize(samples),
        "calls_per_second": per_second(samples),
        "people_per_second": None if target.kind == "null" else per_second(samples, target.batch),
        "samples_ms": [round(value, 6) for value in samples],
    }  # fmt: skip


def refused_target(precision: str, reason: str) -> dict[str, Any]:
    """The entry of a precision that failed its output check."""
    return {
        "name": f"{precision}, every target", "kind": "refused", "precision": precision, "runtime": None, "batch": None,
        "status": "refused", "error": reason, "warmup_calls": 0, "warmup_stable": False, "latency_ms": {"n": 0},
        "calls_per_second": None, "people_per_second": None, "samples_ms": [],
    }  # fmt: skip


def describe_timing(session: Session) -> dict[str, Any]:
    """How the timing was done, and what it includes."""
    return {
        "clock": "time.perf_counter_ns, monotonic", "order": "every round calls every target once",
        "rounds": session.rounds, "seconds": round(session.seconds, 3), "interrupted": session.interrupted,
        "timed": TIMED, "not_timed": list(NOT_TIMED),
    }  # fmt: skip


def compare_precisions(document: dict[str, Any]) -> list[dict[str, Any]]:
    """One entry a precision: latencies, speed-up over FP32 measured in the same rounds, accuracy, agreement."""
    checks = document["checks"]
    return [_compared(document, precision, checks[precision]) for precision in checks]


def _compared(document: dict[str, Any], precision: str, check: dict[str, Any]) -> dict[str, Any]:
    entry: dict[str, Any] = {"precision": precision, "status": "measured" if check["passed"] else "refused"}
    for kind in ("engine", "tail", "parser"):
        mine, fp32 = (latency(document, kind, p) for p in (precision, "fp32"))
        entry[f"{kind}_ms"] = mine
        known = mine and fp32 and mine["p50"]
        entry[f"{kind}_speed_up"] = round(fp32["p50"] / mine["p50"], 4) if known else None  # type: ignore[index]
    card = document["bundle"]["accuracy"].get(precision)
    card = card if isinstance(card, dict) else {}
    entry["execution"] = document["executions"].get(precision)
    entry["accuracy"] = {key: card.get(key) for key in SCORE_KEYS}
    entry["accuracy_note"] = accuracy_note(card)
    entry["agreement"] = document["agreement"].get(precision)
    return entry


def latency(document: dict[str, Any], kind: str, precision: str) -> dict[str, Any] | None:
    """Latency figures of a kind of target; of the engine at batch 1; None where not measured."""
    for target in document["targets"]:
        is_wanted = target["kind"] == kind and target["precision"] == precision
        if is_wanted and (kind != "engine" or target["batch"] == 1) and target["latency_ms"]["n"]:
            figures: dict[str, Any] = target["latency_ms"]
            return figures
    return None


def accuracy_note(card: dict[str, Any]) -> str | None:
    """On which data and how an accuracy card was measured; None where it does not say."""
    data = " ".join(str(card[key]) for key in ("data", "split") if card.get(key))
    parts = [data] if data else []
    if card.get("images"):
        parts.append(f"{card['images']} images")
    parts += [f"{label}{card[key]}" for key, label in _NOTES.items() if card.get(key)]
    return ", ".join(parts) or None


_NOTES = {"boxes": "boxes: ", "protocol": "protocol: ", "runtime": "on ", "note": ""}


def build(
    parts: dict[str, Any], session: Session, stages_ms: dict[str, dict[str, list[float]]], warnings: list[str]
) -> dict[str, Any]:
    """Put the whole document together.

    Args:
        parts: bundle, input, machine, and by precision: checks, agreement, executions; all described already.
        stages_ms: precision -> stage -> samples in milliseconds.
        warnings: sentences known before the timing.
    """
    refused = [refused_target(p, check["reason"]) for p, check in parts["checks"].items() if not check["passed"]]
    document: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION, "kind": "qanet benchmark", "qanet_edge": __version__,
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        **parts, "timing": describe_timing(session),
        "targets": [describe_target(m) for m in session.measurements] + refused,
        "stages": {
            precision: {stage: summarize(samples) for stage, samples in stages.items()}
            for precision, stages in stages_ms.items()
        },
    }  # fmt: skip
    document["comparison"] = compare_precisions(document)
    document["warnings"] = [*warnings, *_target_warnings(document["targets"])]
    if session.interrupted:
        document["warnings"].append(f"interrupted after {session.rounds} rounds: these are the figures until then")
    return document


def _target_warnings(targets: list[dict[str, Any]]) -> list[str]:
    lines = [f"{t['name']}: {t['status']}: {t['error']}" for t in targets if t["error"]]
    shaky = [t["name"] for t in targets if t["status"] == "measured" and not t["warmup_stable"] and t["kind"] != "null"]
    if shaky:
        lines.append(f"the latency still moved when the warm-up ended: {', '.join(shaky)}")
    return lines


def read_document(path: Path) -> dict[str, Any]:
    """A results.json from disk.

    Raises:
        QanetError: not there, not JSON, another document, or a newer schema.
    """
    document = read_json(path)
    version = document.get("schema_version")
    if document.get("kind") != "qanet benchmark" or not isinstance(version, int):
        raise QanetError(f"{path} is no benchmark result", expected="a results.json of qanet benchmark")
    if version > SCHEMA_VERSION:
        raise QanetError(
            f"{path} was written by a newer qanet-edge", expected=f"schema {SCHEMA_VERSION} or older",
            got=f"schema {version}", next_command="pip install --upgrade qanet-edge",
        )  # fmt: skip
    return document


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; QanetError where there is none."""
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise QanetError(f"{path} cannot be read as JSON", got=error) from error
    if not isinstance(document, dict):
        raise QanetError(f"{path} does not hold a JSON object", got=type(document).__name__)
    return document
