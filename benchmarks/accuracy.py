"""The accuracy of every variant that may be timed, through the engine that is timed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.benchmarks.results import VariantResult
from qanet.benchmarks.schema import MeasuredAccuracy, Metric
from qanet.benchmarks.variants import Variant
from qanet.datasets import DataSet, default_split, layout_of, open_dataset
from qanet.labels import LabelSet
from qanet.metrics import ParsingEvaluator, Prediction, Truth
from qanet.metrics.evaluator import SCORE_NAMES, report_maps, report_people, report_quality, report_regions
from qanet.metrics.records import THRESHOLDS
from qanet.runtime.backends.base import Engine
from qanet.runtime.evaluate import evaluate, is_synthetic
from qanet.runtime.parser import Parser


@dataclass(frozen=True)
class Data:
    """A data set and what it is called."""

    images: DataSet
    root: Path
    split: str | None  # None: taken whole

    @property
    def name(self) -> str:
        """Folder and split."""
        return " ".join([self.root.resolve().name, *([self.split] if self.split else [])])


def open_data(path: str, data_format: str | None, split: str | None, labels: LabelSet) -> Data:
    """The data set of a folder.

    Raises:
        QanetError: no such data, or a folder of another kind.
    """
    data_format = layout_of(path, data_format)
    chosen = split or default_split(path, data_format)
    return Data(open_dataset(path, data_format, labels, chosen), Path(path), chosen)


def measure_accuracies(
    variants: Sequence[Variant],
    engines: Mapping[str, Engine],
    data: Data,
    protocol: str,
    limit: int | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, MeasuredAccuracy]:
    """Accuracy by label, every metric with its interval over the images.

    Args:
        limit: take the first so many images; None: all.
        progress: called with a line before each variant.
    Raises:
        QanetError: data and model have different classes, or a file of the data set is broken.
    """
    found = {}
    for variant in variants:
        if variant.label not in engines:
            continue
        images = min(len(data.images.image_names), limit or len(data.images.image_names))
        progress(f"accuracy of {variant.label} on {images} images")
        bundle = variant.bundle
        evaluator = ResampledEvaluator(bundle.labels.num_classes, protocol, bundle.qam_weights)
        parser = Parser(bundle, engines[variant.label], variant.tail)
        some = _Some(data.images, limit)
        report = evaluate(parser, some, protocol, evaluator=evaluator)  # type: ignore[arg-type]
        synthetic = is_synthetic(data.root)
        note = f"{data.name}, {report['images']} images, ground-truth boxes, protocol {protocol}, measured here"
        found[variant.label] = MeasuredAccuracy(
            data=data.name,
            images=report["images"],
            persons=report["persons"],
            protocol=protocol,
            boxes="ground truth",
            synthetic=synthetic,
            note=note + (", SYNTHETIC scenes" if synthetic else ""),
            values=evaluator.intervals(),
        )
    return found


class _Some:
    """The first images of a data set, as a data set."""

    def __init__(self, data: DataSet, limit: int | None):
        self._data, self._limit = data, limit
        self.label_set = data.label_set

    def images(self, detected: Any = None) -> Iterator[Any]:
        return islice(self._data.images(detected), self._limit)


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

    It holds C x C integers per image more than a plain evaluator.
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
        empty = np.zeros((0, len(SCORE_NAMES) + 1))
        self._rows.append(self._scores[-1] if len(self._scores) > rows else empty)
        self._in_regions.append(regions if self._regions.images > regions else None)

    def intervals(self, draws: int = DRAWS, seed: int = _SEED) -> dict[str, Metric]:
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
        empty = np.zeros((0, len(SCORE_NAMES) + 1))
        report.update(report_quality(np.concatenate([empty, *(self._rows[i] for i in images)])))
        return {name: float(report[name]) for name in METRICS}


def _interval(value: float, drawn: list[float]) -> Metric:
    defined = [one for one in drawn if np.isfinite(one)]
    if not np.isfinite(value) or not defined:
        return Metric(None, None, None)
    low, high = np.percentile(defined, (2.5, 97.5))
    return Metric(round(value, 6), round(float(low), 6), round(float(high), 6))


def pareto_front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Which (cost, worth) points are not dominated: none other costs as little and is worth as much, one of the two
    strictly. Equal points are all on the front."""
    return [
        not any(
            cost <= own_cost and worth >= own_worth and (cost, worth) != (own_cost, own_worth) for cost, worth in points
        )
        for own_cost, own_worth in points
    ]


def mark_front(rows: list[VariantResult]) -> list[VariantResult]:
    """Set `pareto` of each row: whether it is on the front of frame latency (p50) against mIoU; None where either was
    not measured."""
    points = {}
    for number, row in enumerate(rows):
        row.pareto = None
        if row.parser_ms and row.parser_ms.p50 and row.accuracy.miou is not None:
            points[number] = (row.parser_ms.p50, row.accuracy.miou)
    for number, front in zip(points, pareto_front(list(points.values()))):
        rows[number].pareto = front
    return rows
