"""A list of durations as the few numbers that describe it."""

from collections.abc import Sequence
from typing import Any

import numpy as np

PERCENTILES = (50, 90, 95, 99)


def summarize(samples_ms: Sequence[float]) -> dict[str, Any]:
    """Percentiles (linear interpolation), extremes, mean and spread of durations.

    Args:
        samples_ms: durations in milliseconds.
    Returns:
        p50, p90, p95, p99, min, max, mean, mad (median absolute deviation from the median), all in milliseconds,
        and n; only n for no samples.
    """
    if not len(samples_ms):
        return {"n": 0}
    values = np.asarray(samples_ms, np.float64)
    points = np.percentile(values, PERCENTILES)
    summary = {f"p{q}": float(v) for q, v in zip(PERCENTILES, points)}
    summary |= {"min": float(values.min()), "max": float(values.max()), "mean": float(values.mean())}
    summary["mad"] = float(np.median(np.abs(values - np.median(values))))
    return {key: round(value, 6) for key, value in summary.items()} | {"n": len(values)}


def per_second(samples_ms: Sequence[float], items_per_call: float = 1.0) -> float | None:
    """Items a second when calls follow each other without a gap; None for no samples."""
    total = float(np.sum(samples_ms)) if len(samples_ms) else 0.0
    return round(len(samples_ms) * items_per_call / total * 1e3, 3) if total > 0 else None
