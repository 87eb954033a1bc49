"""Faster, slower, or cannot tell: one metric of two runs, by 95% intervals.

Two runs lie minutes or months apart, and no interval inside a run knows what the machine did between them. The anchor
does: a fixed piece of work timed in the rounds of both. How much of the anchor's change a target shares is not known,
so the interval spans everything from none of it to all of it; where the machine was as fast in both, that adds nothing.
Where other processes interrupted the calls, which short anchors do not feel, it spans the ratio of processor times too.
Beyond that, differences below the resolution are never called: layout in memory alone moves a program by a percent.

Intervals come from a circular block bootstrap (Politis and Romano 1992) with percentiles: neighbours in time resemble
each other, so blocks of rounds are drawn, not single samples. What was measured in the same rounds is drawn together,
so that a slow minute cancels in the ratio. The draws are seeded: the same samples give the same interval.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qanet.benchmarks.schema import Interval

DRAWS = 1000
LEVEL = 0.95
_SEED = 20260101
Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]  # (R, n) samples to (R,) values


RESOLUTION = 0.02  # least change of a latency that is called
FASTER, SLOWER, CANNOT_TELL = "faster", "slower", "cannot tell"
MIN_SAMPLES = 10


@dataclass(frozen=True)
class Run:
    """Samples of one target of one run, and of the anchor of the same rounds."""

    samples_ms: Sequence[float]
    anchor_ms: Sequence[float]  # empty where the run has none
    cpu_ms: Sequence[float] = ()  # processor time of the calls, where other processes interrupted them; else empty


@dataclass(frozen=True)
class Verdict:
    """New over old as a ratio of latencies, the verdict, and the reason where it is CANNOT_TELL."""

    ratio: Interval | None
    verdict: str
    reason: str = ""
    machine_ratio: float | None = None  # of the anchor: above 1 the machine was slower in the new run


def judge(
    old: Run,
    new: Run,
    statistic: Statistic,
    *,
    resolution: float = RESOLUTION,
    same_machine: bool = True,
    draws: int = DRAWS,
) -> Verdict:
    """Compare a latency of two runs.

    Args:
        statistic: of the latencies, such as their median.
        resolution: least change that is called, a fraction.
        same_machine: False: only the ratio to the anchor (then the method's PyTorch form) is compared.
    """
    few = min(len(old.samples_ms), len(new.samples_ms))
    if few < MIN_SAMPLES:
        return Verdict(None, CANNOT_TELL, f"{few} samples, {MIN_SAMPLES} are needed")
    has_anchor = min(len(old.anchor_ms), len(new.anchor_ms)) >= MIN_SAMPLES
    if not same_machine and not has_anchor:
        return Verdict(None, CANNOT_TELL, "the runs are of different machines; measure both with --baseline")
    (old_drawn, old_anchor, old_value), (new_drawn, new_anchor, new_value) = (
        _drawn(run, statistic, draws, seed, has_anchor) for seed, run in enumerate((old, new))
    )
    raw, value = new_drawn - old_drawn, new_value[0] - old_value[0]
    drift, shift = new_anchor - old_anchor, new_value[1] - old_value[1]
    shares = (0.0, 1.0) if same_machine else (1.0,)
    bounds = [_bounds(raw - share * drift) for share in shares]
    middles = [value - share * shift for share in shares]
    is_shared = same_machine and min(len(old.cpu_ms), len(new.cpu_ms)) >= MIN_SAMPLES
    if is_shared:
        own = [_drawn(Run(run.cpu_ms, ()), statistic, draws, seed, False) for seed, run in enumerate((old, new))]
        bounds.append(_bounds(own[1][0] - own[0][0]))
        middles.append(own[1][2][0] - own[0][2][0])
    middle = float(np.mean(middles))
    lowest, highest = min(low for low, _ in bounds), max(high for _, high in bounds)
    ratio = Interval(float(np.exp(middle)), float(np.exp(lowest)), float(np.exp(highest)))
    machine_ratio = float(np.exp(shift)) if has_anchor else None
    if ratio.low > 1 + resolution:
        return Verdict(ratio, SLOWER, machine_ratio=machine_ratio)
    if ratio.high < 1 / (1 + resolution):
        return Verdict(ratio, FASTER, machine_ratio=machine_ratio)
    reason = "the interval reaches into what is not called"
    if same_machine and abs(shift) > np.log1p(resolution):
        reason = f"the machine itself took {np.exp(shift):.3g} times as long for fixed work"
    elif is_shared:
        reason = "other processes interrupted the calls; see the processor time"
    return Verdict(ratio, CANNOT_TELL, reason, machine_ratio)


def judge_paired(old: Run, new: Run, statistic: Statistic, *, resolution: float = RESOLUTION) -> Verdict:
    """Compare two targets of the same rounds: what the machine did hit both, so that no anchor is needed.

    Where processor times are given, since other processes interrupted the calls, they decide: a call that is
    a little longer meets one interruption more, and the latencies part further than the programs do.
    """
    series = (new.cpu_ms, old.cpu_ms) if old.cpu_ms and new.cpu_ms else (new.samples_ms, old.samples_ms)
    few = min(len(samples) for samples in series)
    if few < MIN_SAMPLES:
        return Verdict(None, CANNOT_TELL, f"{few} samples, {MIN_SAMPLES} are needed")
    ratio = paired_ratio(*series, statistic)
    if ratio.low > 1 + resolution:
        return Verdict(ratio, SLOWER)
    if ratio.high < 1 / (1 + resolution):
        return Verdict(ratio, FASTER)
    return Verdict(ratio, CANNOT_TELL, "the interval reaches into what is not called")


def _drawn(
    run: Run, statistic: Statistic, draws: int, seed: int, has_anchor: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64], tuple[float, float]]:
    """Logs of the statistic of the target and of its anchor: (R,) drawn together, and their values."""
    count = min(len(run.samples_ms), len(run.anchor_ms)) if has_anchor else len(run.samples_ms)
    chosen = draw_blocks(count, draws, seed)
    whole = np.arange(count)[None]
    drawn, value = (replicates(run.samples_ms, statistic, indices) for indices in (chosen, whole))
    if not has_anchor:
        return drawn, np.zeros(draws), (float(value[0]), 0.0)
    anchor, anchor_value = (replicates(run.anchor_ms, statistic, indices) for indices in (chosen, whole))
    return drawn, anchor, (float(value[0]), float(anchor_value[0]))


def _bounds(logs: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.percentile(logs, (50 * (1 - LEVEL), 50 * (1 + LEVEL)))
    return float(low), float(high)


def percentile_statistic(q: float) -> Statistic:
    """The q-th percentile of each row."""
    return lambda rows: np.percentile(rows, q, axis=-1)


def draw_blocks(count: int, draws: int = DRAWS, seed: int = _SEED) -> NDArray[np.int64]:
    """(draws, count) indices of samples, in circular blocks of about the square root of their number."""
    rng = np.random.default_rng(seed)
    block = max(1, round(count**0.5))
    starts = rng.integers(0, count, (draws, -(-count // block)))
    indices = (starts[:, :, None] + np.arange(block)) % count
    return indices.reshape(draws, -1)[:, :count]


def interval_of(samples: ArrayLike, statistic: Statistic, draws: int = DRAWS) -> Interval:
    """The statistic of (n,) samples in order of time, with its interval; n of 1 or more."""
    values = np.asarray(samples, np.float64)
    return _interval(float(statistic(values[None])[0]), statistic(values[draw_blocks(len(values), draws)]))


def paired_ratio(new: ArrayLike, old: ArrayLike, statistic: Statistic, draws: int = DRAWS) -> Interval:
    """Ratio of a statistic of two series of the same rounds; the longer one loses its end."""
    pair = [np.asarray(samples, np.float64) for samples in (new, old)]
    count = min(len(samples) for samples in pair)
    chosen = draw_blocks(count, draws)
    upper, lower = (samples[:count] for samples in pair)
    value = float(statistic(upper[None])[0] / statistic(lower[None])[0])
    return _interval(value, statistic(upper[chosen]) / statistic(lower[chosen]))


def replicates(samples: Sequence[float], statistic: Statistic, chosen: NDArray[np.int64]) -> NDArray[np.float64]:
    """log of a statistic for each draw of `chosen` (R, n): the building block of ratios between runs."""
    return np.log(statistic(np.asarray(samples, np.float64)[chosen]))


def _interval(value: float, drawn: NDArray[np.float64]) -> Interval:
    low, high = np.percentile(drawn, (50 * (1 - LEVEL), 50 * (1 + LEVEL)))
    return Interval(value, float(low), float(high))
