"""95% intervals of the metrics by drawing the images again: what another sample of the same kind would have given."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.metrics import ParsingEvaluator, Prediction, Truth
from qanet.metrics.evaluator import SCORE_NAMES, report_maps, report_people, report_quality, report_regions
from qanet.metrics.records import THRESHOLDS

METRICS = (
    "miou",
    "pixel_accuracy",
    "mean_accuracy",
    "ap_p",
    "ap_p_50",
    "pcp_50",
    "ap_r",
    "ap_r_50",
    "rank_correlation_quality",
    "ece_quality",
)
DRAWS = 200
_SEED = 20260102


class ResampledEvaluator(ParsingEvaluator):
    """An evaluator that also keeps each image's confusion table, so that its report can be had for any draw of images.

    Memory grows by C x C integers an image beside what every evaluator keeps.
    """

    def __init__(self, num_classes: int, protocol: str, weights: tuple[float, float, float]):
        super().__init__(num_classes, protocol, weights)
        self._tables: list[NDArray[np.int64]] = []
        self._rows: list[NDArray[np.float64]] = []  # (N, 5) as `report_quality` takes them
        self._in_regions: list[int | None] = []  # the image's number among the regions; None where it was skipped

    def add(self, truth: Truth, predictions: Sequence[Prediction]) -> None:
        """See `ParsingEvaluator.add`."""
        table, rows, regions = self._histogram.copy(), len(self._scores), self._regions.images
        super().add(truth, predictions)
        self._tables.append(self._histogram - table)
        nobody = np.zeros((0, len(SCORE_NAMES) + 1))
        self._rows.append(self._scores[-1] if len(self._scores) > rows else nobody)
        self._in_regions.append(regions if self._regions.images > regions else None)

    def intervals(self, draws: int = DRAWS, seed: int = _SEED) -> dict[str, dict[str, float | None]]:
        """Metric -> value, low and high (95%), over draws of as many images with replacement; None for undefined."""
        count = len(self._tables)
        rng = np.random.default_rng(seed)
        values = self.metrics_of(range(count))
        drawn = [self.metrics_of(rng.integers(0, count, count).tolist()) for _ in range(draws)] if count else []
        return {name: _interval(values[name], [one[name] for one in drawn]) for name in METRICS}

    def metrics_of(self, images: Sequence[int]) -> dict[str, float]:
        """METRICS over some of the images, by their number in the order added; nan where undefined."""
        report: dict[str, Any] = {}
        tables = sum((self._tables[i] for i in images), np.zeros_like(self._histogram))
        with np.errstate(invalid="ignore"):
            report.update(report_maps(tables, self._boundary, self.protocol))
        shares = np.concatenate([np.zeros((0, len(THRESHOLDS))), *(self._pcp[i] for i in images)])
        report.update(report_people(self._people.take(images), shares))
        taken = [number for i in images if (number := self._in_regions[i]) is not None]
        report.update(report_regions(self._regions.take(taken), self.protocol))
        nobody = np.zeros((0, len(SCORE_NAMES) + 1))
        report.update(report_quality(np.concatenate([nobody, *(self._rows[i] for i in images)])))
        return {name: float(report[name]) for name in METRICS}


def _interval(value: float, drawn: list[float]) -> dict[str, float | None]:
    defined = [one for one in drawn if np.isfinite(one)]
    if not np.isfinite(value) or not defined:
        return {"value": None, "low": None, "high": None}
    low, high = np.percentile(defined, (2.5, 97.5))
    return {"value": round(value, 6), "low": round(float(low), 6), "high": round(float(high), 6)}
