"""Models of one run against each other: the first given is the old one, every other a new one, in the same rounds.

This is the comparison to trust on a machine that others use, and the one that finds small changes.
"""

from collections.abc import Sequence
from typing import Any

from qanet.benchmarks.compare.bootstrap import percentile_statistic
from qanet.benchmarks.compare.verdict import Run, judge_paired
from qanet.benchmarks.targets.variants import Variant

PREEMPTED_SHARE = 0.6  # of the calls, from which a machine counts as shared; the system's own threads make a third
_MEDIAN = percentile_statistic(50)
_KINDS = ("engine", "tail", "parser")


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
        for kind in _KINDS:
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
