"""Many ways of scoring the same predictions, evaluated in one pass: what no score changes is computed once.

A setting changes the order of the people and, with it, NMS, the painting and the ranking; labels, ground truth and
the IoU of every person stay. Regions are matched again only where an image's people come in a new order.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from qanet.errors import QanetError
from qanet.metrics.evaluator import Report, part_rows, report_people, report_regions
from qanet.metrics.measures import MatchedDetections, calibration_error, rank_correlation, reliability
from qanet.metrics.people import (
    CroppedPerson,
    PeopleMatch,
    TruthTable,
    crop_person,
    index_truth,
    match_people,
    pair_mean_iou,
    published_nms,
)
from qanet.metrics.records import THRESHOLDS, Prediction, Protocol, Truth, check_prediction, check_truth, find_protocol
from qanet.metrics.regions import RegionMatch, ascending, match_parts, paint_instances
from qanet.quality import QAM_WEIGHTS, fuse_quality


@dataclass(frozen=True)
class Setting:
    """One way of scoring.

    Attributes:
        weights: QAM exponents of box, IoU and pixel score.
        protocol: "official" or "strict".
        variant: which of the pixel scores given to `ScoreSweep.add` is used.

    >>> Setting(weights=(1, 0, 0)).protocol  # rank by the box score alone
    'official'
    """

    weights: tuple[float, float, float] = QAM_WEIGHTS
    protocol: str = "official"
    variant: int = 0


@dataclass(eq=False)
class _Tally:
    """What is kept of one setting."""

    people: MatchedDetections
    regions: MatchedDetections
    shares: list[NDArray[np.float64]] = field(default_factory=list)
    quality: list[NDArray[np.float64]] = field(default_factory=list)  # (N, 2) quality and true IoU
    part_quality: list[NDArray[np.float64]] = field(default_factory=list)  # (M, 2)


class ScoreSweep:
    """Evaluates settings side by side, image by image: AP^p, PCP, AP^r and how far the fused scores can be trusted.

    Args:
        num_classes: C, background included.
        settings: S ways of scoring.
        nms_threshold, score_threshold: as `ParsingEvaluator`'s.
    Raises:
        QanetError: an unknown protocol.

    >>> category = np.zeros((4, 6), np.uint8)
    >>> category[1:3, 1:3] = 1
    >>> person = Prediction(category, 0.9, 0.8, 0.7, part_pixel_scores=np.array([0.7]))
    >>> sweep = ScoreSweep(2, [Setting(weights=(1, 0, 0)), Setting(protocol="strict")])
    >>> sweep.add(Truth(category, human=category), [person])
    >>> [report["ap_p"] for report in sweep.reports()]
    [1.0, 1.0]
    """

    def __init__(
        self,
        num_classes: int,
        settings: Sequence[Setting],
        *,
        nms_threshold: float = 0.6,
        score_threshold: float = 0.01,
    ) -> None:
        self.num_classes = num_classes
        self.settings = list(settings)
        self.nms_threshold = nms_threshold
        self.score_threshold = score_threshold
        self._protocols = [find_protocol(setting.protocol) for setting in self.settings]
        self._tallies = [
            _Tally(MatchedDetections(np.zeros(1, np.int64)), MatchedDetections(np.zeros(num_classes, np.int64)))
            for _ in settings
        ]

    def add(
        self,
        truth: Truth,
        predictions: Sequence[Prediction],
        pixel_scores: NDArray[np.floating] | None = None,
        part_scores: NDArray[np.floating] | None = None,
    ) -> None:
        """Add one image.

        Args:
            truth: the image's ground truth.
            predictions: its N predicted people.
            pixel_scores, part_scores: (N, V) and (N, V, C-1) variants of the predictions' pixel scores, such as those
                of V thresholds; None: the predictions' own, as variant 0.
        Raises:
            QanetError: arguments that do not fit, or a setting's variant that is not there.
        """
        hw = (int(truth.category.shape[0]), int(truth.category.shape[1]))
        check_truth(truth, 0)
        for index, prediction in enumerate(predictions):
            check_prediction(prediction, hw, self.num_classes, f"prediction {index}")
        pixel, parts = self._variants(predictions, pixel_scores, part_scores)
        image = _Image(truth, [crop_person(p, self.num_classes) for p in predictions], hw, self.num_classes)
        base = np.array([(p.box_score, p.iou_score) for p in predictions], np.float64).reshape(-1, 2)
        for setting, protocol, tally in zip(self.settings, self._protocols, self._tallies):
            scores = (base[:, 0], base[:, 1], pixel[:, setting.variant])
            quality = np.asarray(fuse_quality(*scores, setting.weights), np.float64)
            part_pixel = parts[:, setting.variant]  # (N, C-1)
            part_quality = np.asarray(fuse_quality(base[:, :1], base[:, 1:], part_pixel, setting.weights), np.float64)
            self._add(tally, image, protocol, quality, part_quality)
            if predictions and len(image.table(protocol).ids):
                rows = np.column_stack([*scores, quality])
                parts_shown = part_rows(image.people, image.match(protocol), rows, predictions, part_quality)
                tally.part_quality.append(parts_shown[:, 3:])
                true_iou = image.match(protocol).iou
                tally.quality.append(np.column_stack([quality, np.where(true_iou < 0, np.nan, true_iou)]))

    def _variants(
        self,
        predictions: Sequence[Prediction],
        pixel_scores: NDArray[np.floating] | None,
        part_scores: NDArray[np.floating] | None,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(N, V) and (N, V, C-1) float64."""
        count, parts_count = len(predictions), self.num_classes - 1
        if pixel_scores is None or part_scores is None:
            pixel = np.array([p.pixel_score for p in predictions], np.float64).reshape(count, 1)
            parts = np.array([p.part_pixel_scores for p in predictions], np.float64).reshape(count, 1, parts_count)
        else:
            pixel, parts = np.asarray(pixel_scores, np.float64), np.asarray(part_scores, np.float64)
        wanted = 1 + max((setting.variant for setting in self.settings), default=0)
        if pixel.ndim != 2 or len(pixel) != count or pixel.shape[1] < wanted:
            raise QanetError("pixel_scores do not fit", expected=f"({count}, {wanted} or more)", got=pixel.shape)
        if parts.shape != (*pixel.shape, parts_count):
            raise QanetError("part_scores do not fit", expected=(*pixel.shape, parts_count), got=parts.shape)
        return pixel, parts

    def _add(
        self,
        tally: _Tally,
        image: "_Image",
        protocol: Protocol,
        quality: NDArray[np.float64],
        part_quality: NDArray[np.float64],
    ) -> None:
        """One image under one setting; the same steps as `ParsingEvaluator.add`."""
        area = image.hw[0] * image.hw[1]
        kept = published_nms(image.people, quality, area, self.nms_threshold, protocol, image.pair_iou)
        kept = kept[~(quality[kept] < self.score_threshold)]  # NaN stays
        match, truths = image.match(protocol), np.zeros(len(image.table(protocol).ids), np.int64)
        tally.people.add(quality[kept], match.iou[kept], match.target[kept], np.zeros(len(kept), np.int64), truths)
        tally.shares.append(match.shares[kept])
        if protocol.skip_unpredicted and not image.people:
            return
        found = image.regions(kept[ascending(quality[kept], protocol)], protocol)
        scores = part_quality[found.owners, found.classes - 1]
        tally.regions.add(scores, found.iou, found.target, found.classes, found.truth_classes)

    def reports(self) -> list[Report]:
        """Per setting: ap_p, pcp, ap_r and their kin, and rank_correlation, ece and reliability of quality and
        part_quality; the keys are those of `ParsingEvaluator.report`."""
        return [
            {
                "protocol": setting.protocol,
                "weights": tuple(float(weight) for weight in setting.weights),
                **report_people(tally.people, np.concatenate([np.zeros((0, len(THRESHOLDS))), *tally.shares])),
                **report_regions(tally.regions, protocol),
                **_trust("quality", tally.quality),
                **_trust("part_quality", tally.part_quality),
            }
            for setting, protocol, tally in zip(self.settings, self._protocols, self._tallies)
        ]

    def ap_r_gain_interval(
        self, base: int, other: int, *, resamples: int = 200, level: float = 0.95, seed: int = 0
    ) -> tuple[float, float]:
        """The confidence interval of one setting's gain in AP^r over another: a paired bootstrap over the images.

        Args:
            base, other: indices of two settings of one protocol.
            resamples: number of draws of as many images with replacement.
            level: share of the resampled gains between the two ends.
        Returns:
            the ends of the interval of AP^r(other) - AP^r(base), as fractions; nan without an image.
        Raises:
            QanetError: settings of different protocols.
        """
        protocol = self._protocols[base]
        if protocol is not self._protocols[other]:
            got = f"{protocol.name} and {self._protocols[other].name}"
            raise QanetError("a gain between two protocols means nothing", expected="settings of one protocol", got=got)
        pair = [self._tallies[index].regions for index in (base, other)]
        rng, gains = np.random.default_rng(seed), []
        for _ in range(resamples if pair[0].images else 0):
            drawn = rng.integers(0, pair[0].images, pair[0].images).tolist()
            before, after = (float(report_regions(regions.take(drawn), protocol)["ap_r"]) for regions in pair)
            gains.append(after - before)
        if not gains:
            return float("nan"), float("nan")
        low, high = np.nanquantile(gains, [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)


def _trust(name: str, rows: list[NDArray[np.float64]]) -> Report:
    score, true_iou = np.concatenate([np.zeros((0, 2)), *rows]).T
    table = reliability(score, true_iou)
    return {
        f"rank_correlation_{name}": rank_correlation(score, true_iou),
        f"ece_{name}": calibration_error(table),
        f"reliability_{name}": table,
    }


class _Image:
    """What all settings share of one image, each computed at its first use."""

    def __init__(self, truth: Truth, people: list[CroppedPerson], hw: tuple[int, int], num_classes: int) -> None:
        self.truth, self.people, self.hw, self.num_classes = truth, people, hw, num_classes
        self._tables: dict[bool, TruthTable] = {}
        self._matches: dict[bool, PeopleMatch] = {}
        self._pairs: dict[tuple[int, int], float] = {}
        self._regions: dict[tuple[str, tuple[int, ...]], RegionMatch] = {}

    def table(self, protocol: Protocol) -> TruthTable:
        """The ground truth's people."""
        key = protocol.void_is_error
        if key not in self._tables:
            self._tables[key] = index_truth(self.truth, self.num_classes, void_people=key)
        return self._tables[key]

    def match(self, protocol: Protocol) -> PeopleMatch:
        """Every person with its best ground truth."""
        key = protocol.void_is_error
        if key not in self._matches:
            self._matches[key] = match_people(self.table(protocol), self.people)
        return self._matches[key]

    def pair_iou(self, first: int, second: int) -> float:
        """Mean class IoU of two of the people."""
        key = (min(first, second), max(first, second))
        if key not in self._pairs:
            self._pairs[key] = pair_mean_iou(self.people[key[0]], self.people[key[1]], self.hw[0] * self.hw[1])
        return self._pairs[key]

    def regions(self, order: NDArray[np.int64], protocol: Protocol) -> RegionMatch:
        """The regions that show when people are painted in an order."""
        key = (protocol.name, tuple(order.tolist()))
        if key not in self._regions:
            painted = paint_instances(self.people, order, self.hw, self.num_classes, protocol)
            known = None if protocol.void_is_error else self.truth.category < self.num_classes
            self._regions[key] = match_parts(self.truth, painted, self.num_classes, known)
        return self._regions[key]
