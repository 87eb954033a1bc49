"""The same comparison again and again: verdicts must not flip, and a slow-down that was put in must be found.

Two ways, as a user has two: results of separate processes (`qanet benchmark --compare old.json new.json`), and two
models in the same rounds (`qanet benchmark old.qanet new.qanet`).
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from qanet.benchmarks import harness
from qanet.benchmarks.compare import PREEMPTED_SHARE, compare_results
from qanet.benchmarks.harness import anchor_target
from qanet.benchmarks.selfcheck.one_run import slowed
from qanet.benchmarks.verdict import CANNOT_TELL, FASTER, SLOWER, Run, Verdict, judge_paired, percentile_statistic

FOUND_SHARE = 0.9  # of the repeats in which the slow-down has to be found
_MEDIAN = percentile_statistic(50)

RunOnce = Callable[[float], dict[str, Any]]  # slow-down to a result
OpenTarget = Callable[[], harness.Target]


def separate_runs(run_once: RunOnce, repeats: int, slowdown: float) -> dict[str, Any]:
    """Runs A, slowed, A, slowed, ..., A: each A against the next, and against the slowed one between them.

    Returns:
        See `summary`; a repeat's verdict is that of the median latency, a false one any metric's.
    """
    same, changed = [], []
    before = run_once(0.0)
    for _ in range(repeats):
        slow = run_once(slowdown)
        after = run_once(0.0)
        same.append(compare_results(before, after)["rows"])
        changed.append(compare_results(before, slow)["rows"])
        before = after
    return summary(same, changed)


def same_rounds(open_target: OpenTarget, repeats: int, slowdown: float, seconds: float) -> dict[str, Any]:
    """Three targets in the same rounds: an engine, the same opened again, the same opened again and slowed.

    Args:
        open_target: opens the engine anew.
        seconds: of each repeat's rounds.
    """
    same, changed = [], []
    for _ in range(repeats):
        # An engine each, as two models have: one called twice as often finds its weights in the cache.
        first, again, slow = open_target(), open_target(), slowed(open_target(), slowdown)
        targets = [replace(t, name=name) for name, t in (("first", first), ("again", again), ("slowed", slow))]
        session = harness.run([anchor_target(), *targets], seconds)
        if session.interrupted:
            raise KeyboardInterrupt
        old, new, longer = session.measurements[1:]
        same.append([_row("p50 ms", _paired(old, new))])
        changed.append([_row("p50 ms", _paired(old, longer))])
    return summary(same, changed)


def _paired(old: harness.Measurement, new: harness.Measurement) -> Verdict:
    """By the rule of `compare.models`: processor time where others interrupted the calls."""
    shared = any(m.preempted > PREEMPTED_SHARE * max(len(m.samples_ms), 1) for m in (old, new))
    runs = [Run(m.samples_ms, (), m.cpu_ms if shared else ()) for m in (old, new)]
    return judge_paired(runs[0], runs[1], _MEDIAN)


def _row(metric: str, said: Verdict) -> dict[str, Any]:
    return {
        "metric": metric,
        "verdict": said.verdict,
        "reason": said.reason,
        "ratio": said.ratio.to_json() if said.ratio else None,
    }


def summary(same: list[list[dict[str, Any]]], changed: list[list[dict[str, Any]]]) -> dict[str, Any]:
    """What the verdicts of the repeats come to.

    Args:
        same, changed: a repeat's rows, of nothing changed and of the slow-down; each has a "p50 ms" row.
    Returns:
        Plain data: same and changed: verdict of the median -> repeats; ratios of the medians; false_calls: rows that
        call a change where there is none, or the wrong one; never_flips; found: repeats in which the slow-down was
        found; finds: whether that is often enough.
    """
    medians = [[next(row for row in rows if row["metric"] == "p50 ms") for rows in kind] for kind in (same, changed)]
    false_calls = sum(row["verdict"] != CANNOT_TELL for rows in same for row in rows)
    false_calls += sum(row["verdict"] == FASTER for rows in changed for row in rows)
    found = sum(row["verdict"] == SLOWER for row in medians[1])
    return {
        "repeats": len(same),
        "same": dict(Counter(row["verdict"] for row in medians[0])),
        "changed": dict(Counter(row["verdict"] for row in medians[1])),
        "same_ratios": [row["ratio"] for row in medians[0]],
        "changed_ratios": [row["ratio"] for row in medians[1]],
        "reasons": sorted({row["reason"] for rows in medians for row in rows if row["reason"]}),
        "false_calls": false_calls,
        "never_flips": false_calls == 0,
        "found": found,
        "finds": found >= FOUND_SHARE * len(changed),
    }
