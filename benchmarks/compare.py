"""Comparisons: two results.json (`qanet benchmark --compare OLD.json NEW.json`), and the models of one run.

Within one run the first model is the old one and every other a new one, timed in the same rounds. That comparison finds
the smallest changes, and is the one to trust on a machine that other programs use.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from qanet.benchmarks.record import Record
from qanet.benchmarks.results import SCHEMA_VERSION, ModelComparison, Results, TargetResult, VariantResult
from qanet.benchmarks.schema import Interval, Metric
from qanet.benchmarks.variants import Variant
from qanet.benchmarks.verdict import CANNOT_TELL, RESOLUTION, SLOWER, Run, judge, judge_paired, percentile_statistic
from qanet.commandline import table
from qanet.errors import QanetError

# name -> samples, percentile. Beyond p90 a run of minutes has too few samples to compare. Processor time leaves out
# what other processes took: on a busy machine it shows a slower program where the latency cannot.
METRICS = {"p50 ms": ("samples_ms", 50.0), "p90 ms": ("samples_ms", 90.0), "processor p50 ms": ("cpu_samples_ms", 50.0)}
ACCURACIES = ("miou", "pixel_accuracy", "ap_p", "ap_r", "rank_correlation_quality")
PREEMPTED_SHARE = 0.6  # of the calls, from which a machine counts as shared; the system's own threads make a third
_KINDS = ("engine", "tail", "parser", "pipeline")
_MODEL_KINDS = ("engine", "tail", "parser")
_MEDIAN = percentile_statistic(50)


@dataclass
class ComparisonRow(Record):
    """One metric of one target, or of one variant's accuracy: new over old."""

    target: str
    metric: str
    old: float
    new: float
    ratio: Interval | Metric | None
    machine_ratio: float | None  # of the anchor: above 1 the machine was slower in the new run
    verdict: str
    reason: str
    regression: bool


@dataclass
class Comparison(Record):
    """Two results against each other; only_old and only_new name targets without a partner."""

    schema_version: int
    kind: str
    same_machine: bool
    fail_above: float
    resolution: float
    rows: list[ComparisonRow]
    only_old: list[str]
    only_new: list[str]
    regressions: int


def compare_results(
    old: dict[str, Any], new: dict[str, Any], fail_above: float = 0.05, resolution: float = RESOLUTION
) -> dict[str, Any]:
    """`compare` on the plain data of two results.json."""
    return compare(Results.from_json(old), Results.from_json(new), fail_above, resolution).to_json()


def compare(old: Results, new: Results, fail_above: float = 0.05, resolution: float = RESOLUTION) -> Comparison:
    """Every metric that both results have.

    Args:
        fail_above: share by which a latency must have grown, or an accuracy fallen, to count as a regression.
        resolution: least change of a latency that is called faster or slower, as a share.
    Raises:
        QanetError: they share no measured target.
    """
    before, after = ([t.name for t in r.targets if t.kind in _KINDS and t.samples_ms] for r in (old, new))
    shared = [name for name in before if name in after]
    if not shared:
        raise QanetError(
            "the results share no target",
            expected="runs of the same models and precisions",
            got=f"{', '.join(before) or 'none'} against {', '.join(after) or 'none'}",
        )
    same = same_machine(old, new)
    rows = [_latency_row(name, metric, old, new, same, fail_above, resolution) for name in shared for metric in METRICS]
    rows += _accuracy_rows(old.comparison, new.comparison, fail_above)
    return Comparison(
        schema_version=SCHEMA_VERSION,
        kind="qanet benchmark comparison",
        same_machine=same,
        fail_above=fail_above,
        resolution=resolution,
        rows=rows,
        only_old=[name for name in before if name not in after],
        only_new=[name for name in after if name not in before],
        regressions=sum(row.regression for row in rows),
    )


def same_machine(old: Results, new: Results) -> bool:
    """Whether processor, usable CPUs and GPUs are the same."""
    keys = [
        (machine.cpu.model, machine.cpu.usable_cpus, [gpu.get("name") for gpu in machine.gpus])
        for machine in (old.machine, new.machine)
    ]
    return keys[0] == keys[1]


def _latency_row(
    name: str, metric: str, old: Results, new: Results, same: bool, fail_above: float, resolution: float
) -> ComparisonRow:
    key, percentile = METRICS[metric]
    targets = [next(t for t in results.targets if t.name == name) for results in (old, new)]
    runs = [
        Run(getattr(target, key), _anchor_ms(results, target.session, same, key))
        for results, target in zip((old, new), targets)
    ]
    if key == "samples_ms" and any(_is_preempted(target) for target in targets):
        runs = [replace(run, cpu_ms=target.cpu_samples_ms) for run, target in zip(runs, targets)]
    values = [float(np.percentile(run.samples_ms, percentile)) if run.samples_ms else 0.0 for run in runs]
    found = judge(runs[0], runs[1], percentile_statistic(percentile), resolution=resolution, same_machine=same)
    return ComparisonRow(
        target=name,
        metric=metric,
        old=round(values[0], 6),
        new=round(values[1], 6),
        ratio=found.ratio,
        machine_ratio=None if found.machine_ratio is None else round(found.machine_ratio, 6),
        verdict=found.verdict,
        reason=found.reason,
        regression=found.verdict == SLOWER and found.ratio is not None and found.ratio.value > 1 + fail_above,
    )


def _is_preempted(target: TargetResult) -> bool:
    return (target.preempted_share or 0) > PREEMPTED_SHARE


def _anchor_ms(results: Results, session: str | None, same: bool, key: str) -> list[float]:
    """Samples of the anchor of a session; of the PyTorch form where the results are of different machines."""
    kind = "anchor" if same else "baseline"
    anchors = [target for target in results.targets if (target.kind, target.session) == (kind, session)]
    return list(getattr(anchors[0], key)) if anchors and not results.timing.clock_steps else []


def _accuracy_rows(
    old: Sequence[VariantResult], new: Sequence[VariantResult], fail_above: float
) -> list[ComparisonRow]:
    """Accuracies on the same data. Their intervals are over images; overlapping ones are not called."""
    rows = []
    after = {entry.label: entry.measured_accuracy for entry in new}
    for entry in old:
        own, other = entry.measured_accuracy, after.get(entry.label)
        if not own or not other:
            continue
        if (own.data, own.images, own.protocol) != (other.data, other.images, other.protocol):
            continue
        for key in ACCURACIES:
            pair = [accuracy.values.get(key) for accuracy in (own, other)]
            if pair[0] and pair[1] and pair[0].value and pair[1].value is not None:
                rows.append(_accuracy_row(entry.label, key, pair[0], pair[1], fail_above))
    return rows


def _accuracy_row(label: str, key: str, old: Metric, new: Metric, fail_above: float) -> ComparisonRow:
    before, now = (Interval(m.value or 0.0, m.low or 0.0, m.high or 0.0) for m in (old, new))
    verdict = "worse" if now.high < before.low else "better" if now.low > before.high else CANNOT_TELL
    ratio = now.value / before.value
    return ComparisonRow(
        target=label,
        metric=key,
        old=before.value,
        new=now.value,
        ratio=Metric(
            round(ratio, 6), round(now.low / before.high, 6), round(now.high / before.low, 6) if before.low else None
        ),
        machine_ratio=None,
        verdict=verdict,
        reason="the intervals over the images overlap" if verdict == CANNOT_TELL else "",
        regression=verdict == "worse" and ratio < 1 - fail_above,
    )


def compare_text(found: Comparison) -> str:
    """The comparison as a table, and one line of JSON at its end."""
    rows: list[tuple[object, ...]] = []
    for row in found.rows:
        ratio = f"{row.ratio.value:.4f} ({_bound(row.ratio.low)} .. {_bound(row.ratio.high)})" if row.ratio else "-"
        verdict = row.verdict + (f": {row.reason}" if row.reason else "")
        mark = "REGRESSION" if row.regression else ""
        rows.append((row.target, row.metric, f"{row.old:.4g}", f"{row.new:.4g}", ratio, verdict, mark))
    parts = [table(rows, ("target", "metric", "old", "new", "new / old (95%)", "verdict", ""))]
    if not found.same_machine:
        parts.append("different machines: latencies are compared as ratios to the PyTorch form of the method")
    parts += [f"only in the old result: {', '.join(found.only_old)}"] if found.only_old else []
    parts += [f"only in the new result: {', '.join(found.only_new)}"] if found.only_new else []
    counts = {v: sum(row.verdict == v for row in found.rows) for v in sorted({row.verdict for row in found.rows})}
    summary = {"regressions": found.regressions, "fail_above": found.fail_above, "verdicts": counts}
    return "\n\n".join([*parts, json.dumps(summary)])


def _bound(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def compare_models(targets: Sequence[TargetResult], variants: Sequence[Variant]) -> list[ModelComparison]:
    """A row per kind of target and pair of variants that differ in the model only; medians, new over old.

    Args:
        targets: of the same rounds, without a dropped sample.
    """
    rows = []
    for new in variants:
        alike = [v for v in variants if _setting(v) == _setting(new) and v.model == variants[0].model]
        if not alike or new.model == variants[0].model:
            continue
        for kind in _MODEL_KINDS:
            pair = [_find(targets, kind, label) for label in (alike[0].label, new.label)]
            if pair[0] is None or pair[1] is None:
                continue
            is_shared = any(_is_preempted(target) for target in pair if target)
            runs = [Run(t.samples_ms, (), t.cpu_samples_ms if is_shared else ()) for t in pair if t]
            found = judge_paired(runs[0], runs[1], _MEDIAN)
            of = "processor time" if is_shared else "latency"
            rows.append(ModelComparison(kind, alike[0].label, new.label, of, found.ratio, found.verdict, found.reason))
    return rows


def _setting(variant: Variant) -> tuple[str, str, str]:
    return variant.precision, variant.tail, variant.device


def _find(targets: Sequence[TargetResult], kind: str, label: str) -> TargetResult | None:
    """The target of a kind, the engine's at batch 1; None where it was not measured."""
    found = (t for t in targets if (t.kind, t.variant) == (kind, label) and t.samples_ms)
    return next((t for t in found if kind != "engine" or t.batch == 1), None)
