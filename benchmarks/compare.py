"""Two results.json: which targets and accuracies they share, and a row for each metric of each."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from qanet.benchmarks.document import SCHEMA_VERSION, read_document
from qanet.benchmarks.variants import Variant
from qanet.benchmarks.verdict import CANNOT_TELL, RESOLUTION, SLOWER, Run, judge, judge_paired, percentile_statistic
from qanet.commandline import table
from qanet.errors import QanetError

# name -> samples, percentile. Beyond p90 a run of minutes has too few samples to compare. Processor time leaves out
# what other processes took: on a busy machine it tells a slower program where the latency cannot.
METRICS = {"p50 ms": ("samples_ms", 50.0), "p90 ms": ("samples_ms", 90.0), "processor p50 ms": ("cpu_samples_ms", 50.0)}
ACCURACIES = ("miou", "pixel_accuracy", "ap_p", "ap_r", "rank_correlation_quality")
_KINDS = ("engine", "tail", "parser", "pipeline")


def read_results(path: Path) -> dict[str, Any]:
    """A results.json of this very schema; QanetError for any other."""
    document = read_document(path)
    if document["schema_version"] != SCHEMA_VERSION:
        raise QanetError(
            f"{path} has another schema and cannot be compared",
            expected=f"schema {SCHEMA_VERSION}",
            got=f"schema {document['schema_version']}",
            next_command="measure again with qanet benchmark",
        )
    return document


def compare_results(
    old: dict[str, Any], new: dict[str, Any], fail_above: float = 0.05, resolution: float = RESOLUTION
) -> dict[str, Any]:
    """Every metric that both have.

    Args:
        fail_above: share by which a latency must have grown, or an accuracy fallen, to count as a regression.
        resolution: least change of a latency that is called.
    Returns:
        Plain data: same_machine, rows (target, metric, old, new, ratio, verdict, reason, regression), only_old and
        only_new: targets without a partner, regressions: how many.
    Raises:
        QanetError: they share no measured target.
    """
    before, after = (
        {t["name"]: t for t in d["targets"] if t["kind"] in _KINDS and t["samples_ms"]} for d in (old, new)
    )
    shared = [name for name in before if name in after]
    if not shared:
        raise QanetError(
            "the results share no target",
            expected="runs of the same models and precisions",
            got=f"{', '.join(before) or 'none'} against {', '.join(after) or 'none'}",
        )
    same = same_machine(old, new)
    rows = [_latency_row(name, metric, old, new, same, fail_above, resolution) for name in shared for metric in METRICS]
    rows += _accuracy_rows(old, new, fail_above)
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "qanet benchmark comparison",
        "same_machine": same,
        "fail_above": fail_above,
        "resolution": resolution,
        "rows": rows,
        "only_old": [name for name in before if name not in after],
        "only_new": [name for name in after if name not in before],
        "regressions": sum(row["regression"] for row in rows),
    }


def same_machine(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether processor, CPUs that may be used, and GPUs are the same."""
    keys = [
        (
            (m.get("cpu") or {}).get("model"),
            (m.get("cpu") or {}).get("usable_cpus"),
            [gpu.get("name") for gpu in m.get("gpus") or []],
        )
        for m in (old["machine"], new["machine"])
    ]
    return keys[0] == keys[1]


def _latency_row(
    name: str, metric: str, old: dict[str, Any], new: dict[str, Any], same: bool, fail_above: float, resolution: float
) -> dict[str, Any]:
    key, percentile = METRICS[metric]
    old_run, new_run = (_run(document, name, same, key) for document in (old, new))
    if any(_is_preempted(document, name) for document in (old, new)) and key == "samples_ms":
        old_run, new_run = (
            replace(run, cpu_ms=_target(document, name)["cpu_samples_ms"])
            for run, document in ((old_run, old), (new_run, new))
        )
    values = [float(np.percentile(run.samples_ms, percentile)) if run.samples_ms else 0.0 for run in (old_run, new_run)]
    said = judge(old_run, new_run, percentile_statistic(percentile), resolution=resolution, same_machine=same)
    is_regression = said.verdict == SLOWER and said.ratio is not None and said.ratio.value > 1 + fail_above
    return {
        "target": name,
        "metric": metric,
        "old": round(values[0], 6),
        "new": round(values[1], 6),
        "ratio": said.ratio.to_json() if said.ratio else None,
        "machine_ratio": None if said.machine_ratio is None else round(said.machine_ratio, 6),
        "verdict": said.verdict,
        "reason": said.reason,
        "regression": is_regression,
    }


def _run(document: dict[str, Any], name: str, same: bool, key: str) -> Run:
    return Run(_target(document, name)[key], _anchor(document, name, same, key))


def _is_preempted(document: dict[str, Any], name: str) -> bool:
    return (_target(document, name).get("preempted_share") or 0) > PREEMPTED_SHARE


def _target(document: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(t for t in document["targets"] if t["name"] == name)
    return found


def _anchor(document: dict[str, Any], name: str, same: bool, key: str) -> list[float]:
    """Samples of the fixed work of the target's own rounds; on another machine, of the method's PyTorch form."""
    session = _target(document, name).get("session")
    kind = "anchor" if same else "baseline"
    anchors = [t for t in document["targets"] if t["kind"] == kind and t.get("session") == session]
    return list(anchors[0][key]) if anchors and not document["timing"].get("clock_steps") else []


def _accuracy_rows(old: dict[str, Any], new: dict[str, Any], fail_above: float) -> list[dict[str, Any]]:
    """Accuracies on the same data; their intervals are over images, and overlapping ones are not called."""
    rows = []
    after = {entry["label"]: entry.get("measured_accuracy") or {} for entry in new["comparison"]}
    for entry in old["comparison"]:
        mine, other = entry.get("measured_accuracy") or {}, after.get(entry["label"]) or {}
        if not mine or not other or any(mine.get(key) != other.get(key) for key in ("data", "images", "protocol")):
            continue
        for key in ACCURACIES:
            before, now = ((a.get("values") or {}).get(key) or {} for a in (mine, other))
            if before.get("value") and now.get("value") is not None:
                rows.append(_accuracy_row(entry["label"], key, before, now, fail_above))
    return rows


def _accuracy_row(
    label: str, key: str, old: dict[str, float], new: dict[str, float], fail_above: float
) -> dict[str, Any]:
    ratio = new["value"] / old["value"]
    verdict = "worse" if new["high"] < old["low"] else "better" if new["low"] > old["high"] else CANNOT_TELL
    return {
        "target": label,
        "metric": key,
        "old": old["value"],
        "new": new["value"],
        "ratio": {
            "value": round(ratio, 6),
            "low": round(new["low"] / old["high"], 6),
            "high": round(new["high"] / old["low"], 6) if old["low"] else None,
        },
        "machine_ratio": None,
        "verdict": verdict,
        "reason": "the intervals over the images overlap" if verdict == CANNOT_TELL else "",
        "regression": verdict == "worse" and ratio < 1 - fail_above,
    }


PREEMPTED_SHARE = 0.6  # of the calls, from which a machine counts as shared; the system's own threads make a third
_MEDIAN = percentile_statistic(50)
_TARGET_KINDS = ("engine", "tail", "parser")


def compare_models(targets: Sequence[dict[str, Any]], variants: Sequence[Variant]) -> list[dict[str, Any]]:
    """A row a kind of target and pair of variants that differ in the model only; medians, new over old.

    Args:
        targets: as `describe_target` gives them, of the same rounds and without a dropped sample.
    Returns:
        Plain data: kind, old and new (labels), ratio, of ("latency", or "processor time" where other processes
        interrupted the calls), verdict, reason.
    """
    rows = []
    for new in variants:
        alike = [v for v in variants if _setting(v) == _setting(new) and v.model == variants[0].model]
        if not alike or new.model == variants[0].model:
            continue
        for kind in _TARGET_KINDS:
            pair = [_find(targets, kind, label) for label in (alike[0].label, new.label)]
            if pair[0] is None or pair[1] is None:
                continue
            is_shared = any((t["preempted_share"] or 0) > PREEMPTED_SHARE for t in pair if t)
            runs = [Run(t["samples_ms"], (), t["cpu_samples_ms"] if is_shared else ()) for t in pair if t]
            said = judge_paired(runs[0], runs[1], _MEDIAN)
            rows.append(
                {
                    "kind": kind,
                    "old": alike[0].label,
                    "new": new.label,
                    "of": "processor time" if is_shared else "latency",
                    "ratio": said.ratio.to_json() if said.ratio else None,
                    "verdict": said.verdict,
                    "reason": said.reason,
                }
            )
    return rows


def _setting(variant: Variant) -> tuple[str, str, str]:
    return variant.precision, variant.tail, variant.device


def _find(targets: Sequence[dict[str, Any]], kind: str, label: str) -> dict[str, Any] | None:
    """The target of a kind, the engine's at batch 1; None where it was not measured."""
    return next(
        (
            t
            for t in targets
            if (t["kind"], t["variant"]) == (kind, label) and t["samples_ms"] and (kind != "engine" or t["batch"] == 1)
        ),
        None,
    )


def run_compare(old: str, new: str, fail_above: float, resolution: float, as_json: bool) -> int:
    """Compare two results.json and print the rows; the last line of the text is one line of JSON.

    Returns:
        1 with a regression beyond `fail_above`, else 0.
    Raises:
        QanetError: a file that is no result of this schema, or shares for which there is no sense.
    """
    for name, value in (("--fail-above", fail_above), ("--resolution", resolution)):
        if not 0 <= value < 10:
            raise QanetError(f"bad {name}", expected="a share such as 0.05", got=value)
    found = compare_results(read_results(Path(old)), read_results(Path(new)), fail_above, resolution)
    print(json.dumps(found, indent=1, allow_nan=False) if as_json else compare_text(found))
    return 1 if found["regressions"] else 0


def compare_text(found: dict[str, Any]) -> str:
    """The comparison for a person, and one line of JSON at its end."""
    rows: list[tuple[object, ...]] = []
    for row in found["rows"]:
        ratio = row["ratio"]
        words = f"{ratio['value']:.4f} ({_bound(ratio['low'])} .. {_bound(ratio['high'])})" if ratio else "-"
        verdict = row["verdict"] + (f": {row['reason']}" if row["reason"] else "")
        mark = "REGRESSION" if row["regression"] else ""
        rows.append((row["target"], row["metric"], f"{row['old']:.4g}", f"{row['new']:.4g}", words, verdict, mark))
    header = ("target", "metric", "old", "new", "new / old (95%)", "verdict", "")
    parts = [table(rows, header)]
    if not found["same_machine"]:
        parts.append("different machines: latencies are compared as ratios to the PyTorch form of the method")
    parts += [f"only in the old result: {', '.join(found['only_old'])}"] if found["only_old"] else []
    parts += [f"only in the new result: {', '.join(found['only_new'])}"] if found["only_new"] else []
    counts = {
        v: sum(row["verdict"] == v for row in found["rows"]) for v in sorted({r["verdict"] for r in found["rows"]})
    }
    summary = {"regressions": found["regressions"], "fail_above": found["fail_above"], "verdicts": counts}
    return "\n\n".join([*parts, json.dumps(summary)])


def _bound(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
