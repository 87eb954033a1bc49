"""95% intervals by resampling blocks of rounds: neighbours in time resemble each other, so single samples would not do.

Circular block bootstrap (Politis and Romano 1992), percentile intervals; what was measured in the same rounds is drawn
together, so that a slow minute cancels in their ratio. The draws are seeded: the same samples give the same interval.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

DRAWS = 1000
LEVEL = 0.95
_SEED = 20260101

Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]  # (R, n) samples to (R,) values


@dataclass(frozen=True)
class Interval:
    """An estimate and its 95% interval."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        """Plain data."""
        return {"value": round(self.value, 6), "low": round(self.low, 6), "high": round(self.high, 6)}


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
