"""results.json: everything that was measured and what it was measured on, as plain data.

Schema 2. `targets` holds one entry a target with its raw samples; `comparison` one entry a variant (model, precision,
tail, device), put together from the targets, the agreement on this input and the accuracy; `stages` the parts of the
whole-parser target by variant, `pipeline` those of the video pipeline. What was not measured is null or absent.
"""

import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qanet._version import __version__
from qanet.benchmarks.accuracy import mark_front
from qanet.benchmarks.compare import PREEMPTED_SHARE, compare_models
from qanet.benchmarks.harness import Measurement, Session, per_second, summarize
from qanet.benchmarks.samples import SampleSet
from qanet.benchmarks.targets import NOT_TIMED, TIMED
from qanet.benchmarks.variants import Variant, reference_of
from qanet.benchmarks.verdict import interval_of, paired_ratio, percentile_statistic
from qanet.bundle import Bundle
from qanet.errors import QanetError

SCHEMA_VERSION = 2
SCORE_KEYS = ("miou", "pixel_accuracy")
_MANIFEST_KEYS = ("name", "labels", "input_hw", "qam_weights", "pixel_score_threshold", "graphs", "made", "files")
_OURS = ("null", "anchor", "pipeline")
_MEDIAN = percentile_statistic(50)


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
        "name": name,
        "kind": samples.kind,
        "detector": samples.detector,
        "frames": samples.frames,
        "frames_with_people": len(samples.samples),
        "people": samples.people,
        "people_per_frame": round(samples.mean_people, 3),
        "image_sizes_hw": [list(size) for size in sizes],
        "decode_ms": summarize(samples.decode_ms),
        "detect_ms": summarize(samples.detect_ms),
    }


def describe_target(measurement: Measurement, session: str = "rounds") -> dict[str, Any]:
    """One target's figures and raw samples (milliseconds); `session` names the rounds it was timed in."""
    target, samples = measurement.target, measurement.samples_ms
    status = "failed" if measurement.error else "measured" if samples else "not measured"
    is_work = target.kind not in ("null", "anchor")
    return {
        "name": target.name,
        "kind": target.kind,
        "variant": target.variant or None,
        "precision": target.precision or None,
        "runtime": target.runtime or None,
        "batch": round(target.batch, 3),
        "session": session,
        "status": status,
        "error": measurement.error,
        "warmup_calls": measurement.warmup_calls,
        "warmup_stable": measurement.warmup_stable,
        "first_call_ms": measurement.first_call_ms,
        "latency_ms": summarize(samples),
        "cpu_ms": summarize(measurement.cpu_ms),
        "preempted_share": round(measurement.preempted / len(samples), 6) if samples else None,
        "p50_interval_ms": interval_of(samples, _MEDIAN).to_json() if len(samples) > 1 else None,
        "calls_per_second": per_second(samples),
        "people_per_second": per_second(samples, target.batch) if is_work and target.kind != "pipeline" else None,
        "peak_extra_mib": None,
        "samples_ms": [round(value, 6) for value in samples],
        "cpu_samples_ms": [round(value, 6) for value in measurement.cpu_ms],
    }


def refused_target(variant: str, precision: str, reason: str) -> dict[str, Any]:
    """The entry of a variant that failed its check."""
    return {
        "name": f"{variant}, every target",
        "kind": "refused",
        "variant": variant,
        "precision": precision,
        "runtime": None,
        "batch": None,
        "session": None,
        "status": "refused",
        "error": reason,
        "warmup_calls": 0,
        "warmup_stable": False,
        "first_call_ms": None,
        "latency_ms": {"n": 0},
        "cpu_ms": {"n": 0},
        "preempted_share": None,
        "p50_interval_ms": None,
        "calls_per_second": None,
        "people_per_second": None,
        "peak_extra_mib": None,
        "samples_ms": [],
        "cpu_samples_ms": [],
    }


def describe_timing(session: Session) -> dict[str, Any]:
    """How the timing was done, and what it includes."""
    return {
        "clock": "time.perf_counter_ns, monotonic; on a GPU the stages are between CUDA events",
        "order": "every round calls every target once, in an order drawn anew",
        "rounds": session.rounds,
        "seconds": round(session.seconds, 3),
        "interrupted": session.interrupted,
        "clock_steps": session.clock_steps,
        "wall_shift_s": None if session.wall_shift_s is None else round(session.wall_shift_s, 6),
        "timed": TIMED,
        "not_timed": list(NOT_TIMED),
    }


def compare_variants(document: dict[str, Any], variants: Sequence[Variant]) -> list[dict[str, Any]]:
    """One entry a variant: latencies, ratios to FP32 measured in the same rounds, accuracy, agreement."""
    entries = [_compared(document, variant, reference_of(variant, variants)) for variant in variants]
    entries += [_baseline_entry(target) for target in document["targets"] if target["kind"] == "baseline"]
    return mark_front(entries)


def _compared(document: dict[str, Any], variant: Variant, reference: Variant | None) -> dict[str, Any]:
    label, check = variant.label, document["checks"][variant.label]
    entry: dict[str, Any] = {
        "label": label,
        "model": variant.model,
        "precision": variant.precision,
        "tail": variant.tail,
        "device": variant.device,
        "input_hw": list(variant.bundle.input_hw),
        "status": "measured" if check["passed"] else "refused",
    }
    for kind in ("engine", "tail", "parser"):
        mine, others = (_entry(document, kind, v.label if v else None) for v in (variant, reference))
        entry[f"{kind}_ms"] = mine["latency_ms"] if mine else None
        ratio = _speed_up(mine, others, document) if reference is not None else None
        entry[f"{kind}_speed_up"] = round(ratio["value"], 4) if ratio else None
        entry[f"{kind}_speed_up_interval"] = ratio
    entry["over_baseline"] = _speed_up(_entry(document, "parser", label), _baseline(document, variant.model), document)
    graph = (document["executions"].get(label) or {}).get("graph") or variant.precision
    card = variant.bundle.manifest["accuracy"].get(graph)  # INT8 has two graphs, each with an accuracy of its own
    card = card if isinstance(card, dict) else {}
    entry["execution"] = document["executions"].get(label)
    entry["open_ms"] = document["open_ms"].get(label)
    entry["accuracy"] = {key: card.get(key) for key in SCORE_KEYS}
    entry["accuracy_note"] = accuracy_note(card)
    entry["measured_accuracy"] = (document.get("accuracy") or {}).get(label)
    for key, interval in ((entry["measured_accuracy"] or {}).get("values") or {}).items():
        if key in SCORE_KEYS and interval["value"] is not None:  # what was measured here goes before the card
            entry["accuracy"][key], entry["accuracy_note"] = interval["value"], entry["measured_accuracy"]["note"]
    entry["agreement"] = document["agreement"].get(label)
    entry["energy"] = (document.get("energy") or {}).get("by_variant", {}).get(label)
    return entry


def _baseline_entry(target: dict[str, Any]) -> dict[str, Any]:
    """The PyTorch form as a row of its own, without what only our variants have."""
    keys = ("engine_ms", "tail_ms", "engine_speed_up", "tail_speed_up", "parser_speed_up", "execution", "agreement")
    return {
        "label": target["variant"],
        "model": target["variant"].removesuffix(" in PyTorch"),
        "precision": "fp32",
        "tail": "pytorch",
        "device": "cpu",
        "input_hw": None,
        "status": target["status"],
        "parser_ms": target["latency_ms"] if target["samples_ms"] else None,
        **dict.fromkeys(keys),
        "accuracy": dict.fromkeys(SCORE_KEYS),
        "accuracy_note": None,
        "measured_accuracy": None,
        "energy": None,
        "over_baseline": None,
        "open_ms": None,
    }


def _speed_up(
    mine: dict[str, Any] | None, others: dict[str, Any] | None, document: dict[str, Any]
) -> dict[str, float] | None:
    """How many times as long the other one takes, by the medians of the same rounds, with its interval."""
    if not mine or not others or not mine["latency_ms"]["p50"] or mine["session"] != others["session"]:
        return None
    if document["timing"]["clock_steps"]:
        return None  # samples were dropped, so the rounds do not pair any more
    return paired_ratio(others["samples_ms"], mine["samples_ms"], _MEDIAN).to_json()


def _baseline(document: dict[str, Any], model: str) -> dict[str, Any] | None:
    wanted = f"{model} in PyTorch"
    return next((t for t in document["targets"] if t["variant"] == wanted and t["samples_ms"]), None)


def _entry(document: dict[str, Any], kind: str, label: str | None) -> dict[str, Any] | None:
    """A variant's target of a kind; the engine's at batch 1; None where not measured."""
    for target in document["targets"]:
        is_wanted = target["kind"] == kind and target["variant"] == label
        if is_wanted and (kind != "engine" or target["batch"] == 1) and target["latency_ms"]["n"]:
            found: dict[str, Any] = target
            return found
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
    parts: dict[str, Any],
    variants: Sequence[Variant],
    session: Session,
    stages_ms: dict[str, dict[str, list[float]]],
    warnings: list[str],
    more_sessions: dict[str, Session] | None = None,
) -> dict[str, Any]:
    """Put the whole document together.

    Args:
        parts: bundle, bundles, input, machine, and by label: checks, agreement, executions, open_ms; optionally
            accuracy, energy, cold_start, memory, sweeps, pipeline, profile, floors; all described already.
        stages_ms: label -> stage -> samples in milliseconds.
        warnings: sentences known before the timing.
        more_sessions: name -> rounds of other targets, timed after the main ones.
    """
    precisions = {variant.label: variant.precision for variant in variants}
    refused = [
        refused_target(label, precisions[label], check["reason"])
        for label, check in parts["checks"].items()
        if not check["passed"]
    ]
    timed = [describe_target(m) for m in session.measurements]
    for name, other in (more_sessions or {}).items():
        timed += [describe_target(m, name) for m in other.measurements]
    extra_mib = (parts.get("memory") or {}).get("extra_mib", {})
    for target in timed:
        target["peak_extra_mib"] = extra_mib.get(target["name"])
    document: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "kind": "qanet benchmark",
        "qanet_edge": __version__,
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        **parts,
        "timing": describe_timing(session),
        "targets": timed + refused,
        "stages": {
            label: {stage: summarize(samples) for stage, samples in stages.items()}
            for label, stages in stages_ms.items()
        },
    }
    document["comparison"] = compare_variants(document, variants)
    document["models"] = [] if session.clock_steps else compare_models(document["targets"], variants)
    document["warnings"] = [*warnings, *_target_warnings(document["targets"]), *_clock_warnings(session)]
    if session.interrupted or any(other.interrupted for other in (more_sessions or {}).values()):
        document["timing"]["interrupted"] = True
        document["warnings"].append(f"interrupted after {session.rounds} rounds: these are the figures until then")
    return document


def _target_warnings(targets: list[dict[str, Any]]) -> list[str]:
    lines = [f"{t['name']}: {t['status']}: {t['error']}" for t in targets if t["error"]]
    shared = [t["name"] for t in targets if (t["preempted_share"] or 0) > PREEMPTED_SHARE and t["kind"] not in _OURS]
    if shared:
        lines.append(
            f"other processes interrupted more than {PREEMPTED_SHARE:.0%} of the calls of {len(shared)} targets: those "
            "latencies are of a shared machine; the processor time beside them leaves the others out"
        )
    shaky = [
        t["name"] for t in targets if t["status"] == "measured" and not t["warmup_stable"] and t["kind"] not in _OURS
    ]
    if shaky:
        lines.append(f"the latency still moved when the warm-up ended: {', '.join(shaky)}")
    return lines


def _clock_warnings(session: Session) -> list[str]:
    lines = []
    if session.clock_steps:
        lines.append(f"the clock went backwards: {session.clock_steps} samples were dropped, ratios are not paired")
    if session.wall_shift_s is not None and abs(session.wall_shift_s) > _WALL_SHIFT_S:
        lines.append(
            f"the machine's calendar clock was set by {session.wall_shift_s:+.1f} s meanwhile; the latencies are the "
            "monotonic clock's and stand"
        )
    return lines


_WALL_SHIFT_S = 0.5


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
            f"{path} was written by a newer qanet-edge",
            expected=f"schema {SCHEMA_VERSION} or older",
            got=f"schema {version}",
            next_command="pip install --upgrade qanet-edge",
        )
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
