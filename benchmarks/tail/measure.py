"""Case by case: check every form against the reference, time those that pass in turns, put the figures together."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from qanet.benchmarks import harness
from qanet.benchmarks.harness import summarize
from qanet.benchmarks.tail.cases import Case
from qanet.benchmarks.tail.forms import Form, refusal
from qanet.benchmarks.tail.memory import floor_ms, peak_mib

Peak = Callable[[Form, Case], tuple[float | None, str]]


def measure_case(
    case: Case,
    forms: Sequence[Form],
    bandwidth: float,
    duration_s: float,
    peak: Peak = peak_mib,
    clock: harness.Clock = time.perf_counter_ns,
) -> list[dict[str, Any]]:
    """A row a form.

    Args:
        bandwidth: bytes a second of a large copy.
        duration_s: seconds of timed rounds.
        peak: gives the extra memory of a call in MiB and how it was measured.
    Returns:
        Plain data: case, form, status ("ok", "refused", "failed"), reason, latency_ms, speed_up over the baseline of
        the same rounds, peak_mib and peak_by, floor_ms and times_floor. What was not measured is None.
    """
    arguments = case.arguments()
    refusals = {form.name: refusal(form, case, arguments) for form in forms}
    targets = [_target(form, case, arguments) for form in forms if refusals[form.name] is None]
    session = harness.Session([])
    if targets:
        session = harness.run(targets, duration_s, clock=clock)
        if session.interrupted:
            raise KeyboardInterrupt
    measured = {m.target.name: m for m in session.measurements}
    rows = []
    for form in forms:
        latency = summarize(measured[form.name].samples_ms) if form.name in measured else {"n": 0}
        failed = measured[form.name].error if form.name in measured else None
        status = "refused" if refusals[form.name] else "failed" if failed else "ok"
        mib, by = peak(form, case) if status == "ok" else (None, "")
        rows.append(
            {
                "case": case.name,
                "form": form.name,
                "status": status,
                "reason": refusals[form.name] or failed,
                "latency_ms": latency,
                "peak_mib": mib,
                "peak_by": by,
            }
        )
    return with_ratios(rows, floor_ms(case, bandwidth))


def _target(form: Form, case: Case, arguments: dict[str, Any]) -> harness.Target:
    return harness.Target(form.name, lambda number: form(arguments), "tail", batch=len(case.boxes))


def with_ratios(rows: list[dict[str, Any]], floor: float) -> list[dict[str, Any]]:
    """The rows of one case with their ratios of medians: to the baseline's, and to the floor (milliseconds)."""
    medians = {row["form"]: row["latency_ms"].get("p50") for row in rows}
    baseline = medians.get("baseline")
    for row in rows:
        median = medians[row["form"]]
        row["speed_up"] = baseline / median if baseline and median else None
        row["floor_ms"] = floor
        row["times_floor"] = median / floor if median else None
    return rows


def sweeps(cases: Sequence[Case], rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per form, what the sweeps say: time is linear in the persons' area and flat in the image's size, or is not.

    Returns:
        Plain data a form: form; ns_per_pixel, constant_ms and r2 of the straight line through the "area" points;
        image_ratio, the longest over the shortest median of the "image" points. None where points are missing.
    """
    found = []
    for form in dict.fromkeys(row["form"] for row in rows):
        medians = {row["case"]: row["latency_ms"].get("p50") for row in rows if row["form"] == form}
        area = [(case.area, medians[case.name]) for case in cases if case.group == "area" and medians.get(case.name)]
        image = [medians[case.name] for case in cases if case.group == "image" and medians.get(case.name)]
        found.append({"form": form, **straight_line(area), "image_ratio": max(image) / min(image) if image else None})
    return found


def straight_line(points: Sequence[tuple[float, float]]) -> dict[str, float | None]:
    """Least squares through (pixels, milliseconds): ns_per_pixel, constant_ms, r2; None for fewer than three."""
    if len(points) < 3:
        return {"ns_per_pixel": None, "constant_ms": None, "r2": None}
    x, y = np.asarray(points, np.float64).T
    slope, constant = np.polyfit(x, y, 1)
    rest, spread = ((y - slope * x - constant) ** 2).sum(), ((y - y.mean()) ** 2).sum()
    return {
        "ns_per_pixel": float(slope * 1e6),
        "constant_ms": float(constant),
        "r2": float(1 - rest / spread) if spread else None,
    }
