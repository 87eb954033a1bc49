"""From a histogram of |x| to amax, the largest magnitude that INT8 keeps: minmax, percentile, entropy, MSE.

Everything is symmetric (S8S8, zero point 0): amax maps to 127 and values beyond it saturate. `levels` is the
number of positive steps, 127 for INT8; tests use two or three so that the answer can be worked out by hand.

Sources: entropy after S. Migacz, "8-bit inference with TensorRT" (GTC 2017), in the form of NVIDIA's
pytorch-quantization: the clipped mass joins the last bin of the reference and bin 0 is replaced by bin 1, since
the exact zeros behind a ReLU cost no precision and would drown the rest.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from qanet.calib.histogram import Histogram
from qanet.errors import QanetError

METHODS = ("entropy", "percentile", "mse", "minmax")
INT8_LEVELS = 127
DEFAULT_PERCENTILE = 99.99
_CANDIDATES = 256  # ranges tried by entropy and mse; finer than that is below the noise of the calibration set


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
    # A level spreads its mass evenly over its bins that hold anything: that is all INT8 can tell of them.
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
    """Numbers of bins to try, ascending: from one bin a level (finer bins say nothing more) to all that are used."""
    used = histogram.used_bins()
    return np.unique(np.linspace(min(levels, used), used, _CANDIDATES).round().astype(np.int64))


def _edge(histogram: Histogram, bins: int) -> float:
    """Upper edge of the first `bins` bins, never beyond the largest value seen."""
    return min(int(bins) * histogram.width, histogram.largest)
