"""Limits of a soak, and which of them its readings break."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qanet.benchmarks.soak.process import Reading

_LEAST_READINGS = 4  # two at each end, or there is no growth to speak of


@dataclass(frozen=True)
class Limits:
    """What a soak must keep.

    Attributes:
        growth_mib: of the resident memory, from the first frames after `settle` to the last ones.
        peak_mib: of the resident memory at any reading; None: not limited.
        settle: frames before memory is compared: pools fill, tracks begin.
    """

    growth_mib: float = 10.0
    peak_mib: float | None = 500.0
    settle: int = 500


def growth_mib(readings: Sequence[Reading], settle: int) -> float | None:
    """How much more memory the last tenth of the readings holds than the first tenth after `settle` frames.

    Medians of both: a frame on its way through the queues is megabytes, and how many are on their way changes from
    reading to reading. None for fewer than four readings.
    """
    rss = np.array([reading.rss_mib for reading in readings if reading.frame >= settle])
    if len(rss) < _LEAST_READINGS:
        return None
    tenth = max(2, len(rss) // 10)
    return float(np.median(rss[-tenth:]) - np.median(rss[:tenth]))


def judge(before: Reading, readings: Sequence[Reading], after: Reading, limits: Limits) -> dict[str, Any]:
    """Figures, and a sentence for each limit that is broken.

    Args:
        before, after: with no pipeline running, once everything is loaded and warm, and once all is over.
        readings: while it ran.
    Returns:
        growth_mib, peak_mib, mib_per_1000_frames (slope of the line through all readings after `settle`), threads and
        files before, at most and after, broken: sentences.
    """
    growth = growth_mib(readings, limits.settle)
    peak = max(reading.rss_mib for reading in (before, *readings, after))
    figures: dict[str, Any] = {
        "growth_mib": growth,
        "peak_mib": peak,
        "mib_per_1000_frames": _slope(readings, limits.settle),
        **{
            name: {
                "before": getattr(before, name),
                "most": max(getattr(r, name) for r in (before, *readings, after)),
                "after": getattr(after, name),
            }
            for name in ("threads", "python_threads", "files")
        },
    }
    broken = []
    if growth is None:
        broken.append(f"fewer than {_LEAST_READINGS} readings after {limits.settle} frames: growth was not measured")
    elif growth > limits.growth_mib:
        broken.append(f"memory grew by {growth:.1f} MiB, above {limits.growth_mib:g}")
    if limits.peak_mib is not None and peak > limits.peak_mib:
        broken.append(f"resident memory reached {peak:.0f} MiB, above {limits.peak_mib:g}")
    for name, what in (("python_threads", "threads of the pipeline"), ("threads", "threads"), ("files", "open files")):
        left = getattr(after, name) - getattr(before, name)
        if left > 0:
            broken.append(f"{what} left behind: {left}")
    return figures | {"broken": broken}


def _slope(readings: Sequence[Reading], settle: int) -> float | None:
    chosen = [reading for reading in readings if reading.frame >= settle]
    if len(chosen) < _LEAST_READINGS:
        return None
    frames = np.array([reading.frame for reading in chosen], np.float64)
    rss = np.array([reading.rss_mib for reading in chosen])
    return float(np.polyfit(frames, rss, 1)[0] * 1000)
