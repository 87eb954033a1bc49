"""A histogram of |x| that widens as it sees more, in constant memory and independent of the order of its data.

Bins start at zero and are 2^e wide. When a larger value arrives e grows and neighbouring bins are merged; since
scaling by a power of two is exact in floating point, the merged counts are those a histogram of the final width
would have had from the start. So the result depends only on the multiset of values: not on the order of the
crops nor on how they were batched.
"""

import math

import numpy as np
from numpy.typing import NDArray

BINS = 4096  # the largest value lies in the upper half, so at least 2048 are in use
_SMALLEST_EXPONENT = -100  # keeps 2^-e finite in float32


class Histogram:
    """Counts of |x|: `counts[i]` values lie in [i, i + 1) x width; exact zeros lie in bin 0.

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
