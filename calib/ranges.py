"""Histograms of activations, and the largest magnitude (amax) that INT8 keeps: minmax, percentile, entropy, MSE.

Everything is symmetric (S8S8, zero point 0): amax maps to 127 and values beyond it saturate. `levels` is the
number of positive steps, 127 for INT8; tests use two or three so that the answer can be worked out by hand.

Sources: entropy after S. Migacz, "8-bit inference with TensorRT" (GTC 2017), in the form of NVIDIA's
pytorch-quantization: the clipped mass joins the last bin of the reference and bin 0 is replaced by bin 1, since
the exact zeros behind a ReLU cost no precision and would drown the rest.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from qanet.errors import QanetError

METHODS = ("entropy", "percentile", "mse", "minmax")
INT8_LEVELS = 127
DEFAULT_PERCENTILE = 99.99
_CANDIDATES = 256  # ranges tried by entropy and mse; finer than that is below the noise of the calibration set
BINS = 4096  # the largest value lies in the upper half, so at least 2048 are in use
_SMALLEST_EXPONENT = -100  # keeps 2^-e finite in float32


class Histogram:
    """Counts of |x|: `counts[i]` values lie in [i, i + 1) x width; exact zeros lie in bin 0.

    Memory is constant, and the result depends only on the multiset of values, not on their order or batches: bins
    start at zero and are 2^e wide. When a larger value arrives e grows and neighbouring bins are merged; since scaling
    by a power of two is exact in floating point, the merged counts are those of a histogram of the final width.

    Attributes:
        counts: (bins,) int64.
        width: bin width, a power of two, in the tensor's units.
        largest: the largest |x| seen, exact.
        exponent: of the width.
    """

    def __init__(self, bins: int = BINS):
        self.counts: NDArray[np.int64] = np.zeros(bins, np.int64)
        self.largest = 0.0
        self.exponent = _SMALLEST_EXPONENT

    @property
    def width(self) -> float:
        return math.ldexp(1.0, self.exponent)

    def add(self, values: NDArray[np.float32]) -> None:
        """Count |values| of any shape, float32.

        Raises:
            ValueError: a value is NaN or infinite; the caller knows the tensor's name.
        """
        magnitude = np.abs(values.reshape(-1))
        largest = float(magnitude.max(initial=0.0))  # NaN propagates through max
        if not math.isfinite(largest):
            raise ValueError("a value is NaN or infinite")
        self._widen(largest)
        self.largest = max(self.largest, largest)
        magnitude *= np.float32(math.ldexp(1.0, -self.exponent))
        self.counts += np.bincount(magnitude.astype(np.int32), minlength=len(self.counts))

    def _widen(self, largest: float) -> None:
        """Merge bins pairwise until `largest` falls into the last one or before it."""
        steps = 0
        while largest >= math.ldexp(len(self.counts), self.exponent + steps):
            steps += 1
        if not steps:
            return
        self.exponent += steps
        merged = np.zeros_like(self.counts)
        np.add.at(merged, np.arange(len(merged)) >> min(steps, 62), self.counts)
        self.counts = merged

    @classmethod
    def from_counts(cls, counts: NDArray[np.int64], exponent: int = 0) -> "Histogram":
        """A histogram with these counts, bins of 2^exponent; the largest value is the last used bin's upper edge."""
        used = np.flatnonzero(counts)
        return cls.of(counts, exponent, math.ldexp(int(used[-1]) + 1, exponent) if len(used) else 0.0)

    @classmethod
    def of(cls, counts: NDArray[np.int64], exponent: int, largest: float) -> "Histogram":
        """A histogram with these attributes, as they were read from another one."""
        histogram = cls(len(counts))
        histogram.counts = np.asarray(counts, np.int64)
        histogram.exponent, histogram.largest = exponent, largest
        return histogram

    def used_bins(self) -> int:
        """Number of bins up to and including the one of the largest value; 0 for an all-zero tensor."""
        if self.largest == 0.0:
            return 0
        return int(np.flatnonzero(self.counts)[-1]) + 1


def find_range(
    histogram: Histogram, method: str, *, percentile: float = DEFAULT_PERCENTILE, levels: int = INT8_LEVELS
) -> float:
    """amax by one of METHODS; 0.0 for a tensor that was zero throughout.

    Raises:
        QanetError: unknown method, or a percentile outside (0, 100].
    """
    check_method(method, percentile)
    if histogram.largest == 0.0:
        return 0.0
    ranges: dict[str, Callable[[], float]] = {
        "minmax": lambda: histogram.largest,
        "percentile": lambda: percentile_range(histogram, percentile),
        "entropy": lambda: entropy_range(histogram, levels),
        "mse": lambda: mse_range(histogram, levels),
    }
    return ranges[method]()


def check_method(method: str, percentile: float = DEFAULT_PERCENTILE) -> None:
    """Raise QanetError for a method that is not in METHODS or a percentile outside (0, 100]."""
    if method not in METHODS:
        raise QanetError(
            f"unknown calibration method {method!r}",
            expected=f"one of {', '.join(METHODS)}",
            got=method,
            next_command="qanet calibrate NAME.qanet --data DIR --method entropy",
        )
    if not 0 < percentile <= 100:
        raise QanetError("the percentile is out of range", expected="0 < percentile <= 100", got=percentile)


def percentile_range(histogram: Histogram, percentile: float) -> float:
    """Upper edge of the first bin up to which at least `percentile` per cent of all values (zeros too) lie."""
    cumulative = np.cumsum(histogram.counts)
    needed = percentile / 100 * cumulative[-1]
    return _edge(histogram, int(np.searchsorted(cumulative, needed)) + 1)


def entropy_range(histogram: Histogram, levels: int = INT8_LEVELS) -> float:
    """The range whose quantised distribution has the least KL divergence from the observed one."""
    counts = histogram.counts.astype(np.float64)
    counts[0] = counts[1] if len(counts) > 1 else counts[0]
    best, best_divergence = histogram.used_bins(), np.inf
    for bins in _candidates(histogram, levels):
        divergence = _divergence(counts, bins, levels)
        if divergence <= best_divergence:  # of equals the widest, which saturates least
            best, best_divergence = bins, divergence
    return _edge(histogram, best)


def _divergence(counts: NDArray[np.float64], bins: int, levels: int) -> float:
    """KL(reference || quantised) in nats for the range of the first `bins` bins; infinite where mass is lost."""
    kept = counts[:bins]
    reference = kept.copy()
    reference[-1] += counts[bins:].sum()
    group = np.arange(bins) * levels // bins  # level of each bin
    occupied = kept > 0
    mass = np.bincount(group, kept, levels)
    members = np.bincount(group, occupied, levels)
    # A level spreads its mass evenly over its occupied bins: INT8 cannot distinguish them.
    quantised = np.where(occupied, (mass / np.maximum(members, 1))[group], 0.0)
    seen = reference > 0
    if not quantised.sum() or (quantised[seen] == 0).any():
        return np.inf
    p, q = reference[seen] / reference.sum(), quantised[seen] / quantised.sum()
    return float((p * np.log(p / q)).sum())


def mse_range(histogram: Histogram, levels: int = INT8_LEVELS) -> float:
    """The range with the least squared error, rounding and saturation together, each bin taken at its centre."""
    used = histogram.used_bins()
    counts = histogram.counts[:used].astype(np.float64)
    centres = (np.arange(used) + 0.5) * histogram.width
    best, best_error = used, np.inf
    for bins in _candidates(histogram, levels):
        step = bins * histogram.width / levels
        rounded = np.minimum(np.rint(centres / step), levels) * step
        error = float(counts @ (centres - rounded) ** 2)
        if error <= best_error:
            best, best_error = bins, error
    return _edge(histogram, best)


def _candidates(histogram: Histogram, levels: int) -> NDArray[np.int64]:
    """Numbers of bins to try, ascending: from one bin per level (finer bins add nothing) to all that are used."""
    used = histogram.used_bins()
    return np.unique(np.linspace(min(levels, used), used, _CANDIDATES).round().astype(np.int64))


def _edge(histogram: Histogram, bins: int) -> float:
    """Upper edge of the first `bins` bins, never beyond the largest value seen."""
    return min(int(bins) * histogram.width, histogram.largest)
