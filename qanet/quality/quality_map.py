"""A calibrated score: the mean IoU that a person, or the IoU that a part, of such scores can be expected to have.

Q ranks people, and its number stands for nothing: where it says 0.9, the true IoU is near 0.6. A quality map turns the
fused scores into an expected IoU by a curve that never falls, fitted on photographs with truth. It fuses IoU and pixel
score alone: a detector's score depends on the detector, and is 1 where a caller gives the boxes. Source of the idea:
isotonic calibration, Zadrozny and Elkan, KDD 2002; here with few knots, because there are few photographs.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qanet.errors import QanetError
from qanet.quality.qam import fuse_quality

KNOTS = 5


@dataclass(frozen=True)
class Curve:
    """Straight lines between knots, constant beyond the first and the last.

    >>> Curve((0.5, 0.9), (0.2, 0.6))([0.0, 0.7, 1.0]).round(3).tolist()
    [0.2, 0.4, 0.6]
    """

    scores: tuple[float, ...]
    expected: tuple[float, ...]

    def __call__(self, scores: ArrayLike) -> NDArray[np.float32]:
        """The expected IoU of each score; any shape, float32. A score that is nan is worth the least."""
        known = np.nan_to_num(np.asarray(scores, np.float64), nan=0.0)
        return np.interp(known, self.scores, self.expected).astype(np.float32)


@dataclass(frozen=True)
class QualityMap:
    """The expected IoU of people and of parts.

    Attributes:
        weights: exponents of box, IoU and pixel score of the fused score that the curves take.
        people: to the mean class IoU of a person, background included.
        parts: to the IoU of a part.
    """

    weights: tuple[float, float, float]
    people: Curve
    parts: Curve

    def expected_miou(self, box: ArrayLike, iou: ArrayLike, pixel: ArrayLike) -> NDArray[np.float32]:
        """(N,) of N people; `iou` is clamped to [0, 1].

        >>> chart = QualityMap((0, 0.5, 3), Curve((0.5, 0.9), (0.2, 0.6)), Curve((0.0, 1.0), (0.0, 0.8)))
        >>> chart.expected_miou([1.0, 0.4], [0.7, 0.7], [0.7, 0.7]).round(3).tolist()
        [0.4, 0.4]
        """
        return self.people(fuse_quality(box, iou, pixel, self.weights))

    def expected_part_iou(self, box: ArrayLike, iou: ArrayLike, part_scores: ArrayLike) -> NDArray[np.float32]:
        """(N, C-1) of N people's parts; 0 where a part has no pixel."""
        pixel = np.asarray(part_scores, np.float32)
        fused = fuse_quality(np.asarray(box)[:, None], np.asarray(iou)[:, None], pixel, self.weights)
        return np.where(pixel > 0, self.parts(fused), np.float32(0)).astype(np.float32)

    def to_json(self) -> dict[str, Any]:
        """Plain data, as a manifest holds it."""
        curves = {
            name: [list(c.scores), list(c.expected)] for name, c in (("people", self.people), ("parts", self.parts))
        }
        return {"weights": list(self.weights), **curves}

    @staticmethod
    def from_json(entry: Mapping[str, Any]) -> "QualityMap":
        """Inverse of `to_json`; further keys are ignored.

        Raises:
            QanetError: no such map, or a curve that falls.
        """
        try:
            a, b, g = (float(v) for v in entry["weights"])
            people, parts = (Curve(*(tuple(map(float, axis)) for axis in entry[name])) for name in ("people", "parts"))
        except (KeyError, TypeError, ValueError) as error:
            raise QanetError("bad quality_map", expected="weights, people and parts", got=repr(error)) from error
        for curve in (people, parts):
            if len(curve.scores) != len(curve.expected) or not curve.scores or not _is_monotone(curve):
                raise QanetError("bad quality_map", expected="curves that never fall", got=curve)
        return QualityMap((a, b, g), people, parts)


def _is_monotone(curve: Curve) -> bool:
    scores, expected = np.array(curve.scores), np.array(curve.expected)
    finite = np.isfinite(scores).all() and np.isfinite(expected).all()
    return bool(finite and (np.diff(scores) > 0).all() and (np.diff(expected) >= 0).all())


def map_of(maps: Mapping[str, Any], graph: str) -> QualityMap | None:
    """The map of a bundle's graph among those of its manifest: the graph's own ("int8-no-vnni"), that of its precision
    ("int8"), or for 16-bit types that of FP32; None where there is none.

    Raises:
        QanetError: a map that cannot be used.
    """
    names = (graph, graph.split("-")[0], *(("fp32",) if graph in ("fp16", "bf16") else ()))
    entry = next((maps[name] for name in names if name in maps), None)
    return None if entry is None else QualityMap.from_json(entry)


def fit_curve(scores: ArrayLike, true_iou: ArrayLike, knots: int = KNOTS) -> Curve:
    """The curve of least squared error that never falls, with knots at quantiles of the scores.

    Args:
        scores, true_iou: (N,) pairs; those that are not finite are left out.
        knots: at most as many.
    Raises:
        QanetError: fewer pairs than knots.

    >>> scores = np.linspace(0.5, 1, 200)
    >>> curve = fit_curve(scores, scores**2 - 0.2)
    >>> bool(np.abs(curve(scores) - (scores**2 - 0.2)).max() < 0.01)
    True
    """
    x, y = np.asarray(scores, np.float64).ravel(), np.asarray(true_iou, np.float64).ravel()
    finite = np.isfinite(x) & np.isfinite(y)
    x, y = x[finite], y[finite]
    if len(x) < knots:
        raise QanetError("too few people to fit a quality map", expected=f"{knots} or more", got=len(x))
    where = np.unique(np.quantile(x, np.linspace(0, 1, knots)).round(5))
    if len(where) == 1:
        return Curve((float(where[0]),), (float(y.mean()),))
    # Each column is the share of a segment that lies below a score; no weight of one may be negative.
    rises = np.clip((x[:, None] - where[:-1]) / np.diff(where), 0, 1)
    weights = _nonnegative(np.column_stack([np.ones(len(x)), rises]), y)
    return Curve(tuple(where.tolist()), tuple(np.clip(np.cumsum(weights), 0, 1).round(5).tolist()))


def _nonnegative(design: NDArray[np.float64], wanted: NDArray[np.float64]) -> NDArray[np.float64]:
    """(K,) weights of zero or more of least squared error: every choice of weights that are zero is tried."""
    best, least = np.zeros(design.shape[1]), float("inf")
    for chosen in itertools.product((False, True), repeat=len(best)):
        weights = np.zeros(len(best))
        used = np.array(chosen)
        weights[used] = np.linalg.lstsq(design[:, used], wanted, rcond=None)[0]
        error = float(np.square(design @ weights - wanted).sum())
        if weights.min() >= 0 and error < least:
            best, least = weights, error
    return best
