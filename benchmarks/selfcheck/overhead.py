"""What the harness costs: inside a sample, and around it."""

import time
from dataclasses import replace
from typing import Any

from qanet.benchmarks import harness
from qanet.benchmarks.harness import summarize

LIMIT_US = 20.0


def measure_overhead(target: harness.Target, seconds: float) -> dict[str, Any]:
    """The null target beside a real one, whose work has just emptied the caches as it does in a benchmark.

    Returns:
        Plain data, microseconds: inside: of a sample, by the null target; around: processor time of a call's
        bookkeeping outside of its sample; fits: whether both together stay below LIMIT_US.
    """
    marks: list[int] = []
    started = replace(target, started=lambda: marks.append(time.process_time_ns()))
    session = harness.run([harness.null_target(), started], seconds)
    spent_ms = (time.process_time_ns() - marks[0]) / 1e6 if marks else 0.0
    if session.interrupted:
        raise KeyboardInterrupt
    null, work = session.measurements
    calls = len(null.samples_ms) + len(work.samples_ms)
    around_us = max(spent_ms - sum(null.cpu_ms) - sum(work.cpu_ms), 0.0) * 1e3 / max(calls, 1)
    inside_us = {key: value * 1e3 for key, value in summarize(null.samples_ms).items() if key in ("p50", "p99", "mean")}
    return {
        "calls": calls,
        "inside_us": inside_us,
        "around_us": around_us,
        "fits": bool(null.samples_ms) and inside_us["p50"] + around_us < LIMIT_US,
    }
