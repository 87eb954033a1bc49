"""The evaluation: one image at a time, a few numbers kept per person and region, and the report made of them.

Definitions: method, section Metrics; the published code (soeaver/QANet) under the official protocol. The report's keys:

    protocol, num_classes, weights; images, images_without_prediction, persons, predictions: what was evaluated
    miou, pixel_accuracy, mean_accuracy, iou (C,), accuracy (C,): the semantic map, background included; classes_absent
        from its ground truth
    mean_recall, mean_f_measure, f_measure (C,): the same map; recall over the classes of the ground truth only
    image_f_measure: mean over the images of the F-measure over the classes that the image's annotation shows
    boundary_miou, boundary_iou (C,): the same map within 2 % of the diagonal around its contours
    ap_p, ap_p_50, ap_p_per_threshold (9,) and pcp, pcp_50, pcp_per_threshold (9,): people, at `thresholds`
    ap_r, ap_r_50, ap_r_per_threshold (9,), ap_r_per_class (C-1, 9): (person, class) regions, at `thresholds`
    ap_h, ap_h_50, ap_h_per_threshold (10,): people's masks, at `human_thresholds`
    rank_correlation_NAME, ece_NAME, reliability_NAME (10, 3): how far a score can be trusted, NAME one of box, iou,
        pixel, quality: Spearman's correlation with the mean class IoU of the person with its best ground truth,
        expected calibration error against it, and the reliability diagram (per bin: count, mean score, mean true IoU),
        over all predictions (before NMS) of images with people; mean_true_iou: the mean of that IoU
    rank_correlation_part_NAME, ece_part_NAME, reliability_part_NAME, mean_true_part_iou: the same over the parts of
        these people; box and iou are the person's, pixel and quality the part's, the truth is its class's IoU

All are fractions; a number that is not defined is nan.
"""

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.errors import QanetError
from qanet.metrics.measures import (
    MatchedDetections,
    annotated_f_measure,
    boundary_counts,
    calibration_error,
    confusion,
    mean_defined,
    rank_correlation,
    ranking,
    reliability,
    summarize,
    true_positives,
    voc_average_precision,
)
from qanet.metrics.people import CroppedPerson, PeopleMatch, crop_person, index_truth, match_people, published_nms
from qanet.metrics.records import (
    HUMAN_THRESHOLDS,
    THRESHOLDS,
    Prediction,
    Protocol,
    Truth,
    check_prediction,
    check_truth,
    find_protocol,
)
from qanet.metrics.regions import RegionMatch, ascending, match_humans, match_parts, paint_instances, paint_semantic
from qanet.quality import QAM_WEIGHTS, fuse_quality

Report = dict[str, Any]

SCORE_NAMES = ("box", "iou", "pixel", "quality")


def report_maps(histogram: NDArray[np.int64], boundary: NDArray[np.int64], protocol: Protocol) -> Report:
    """Metrics of the semantic map.

    Args:
        histogram: (C, C) pixels by true and predicted class.
        boundary: (2, C) boundary pixels in common, and in either.
    """
    with np.errstate(invalid="ignore"):
        boundary_iou = boundary[0] / boundary[1]
    return {
        **summarize(histogram, absent_is_zero=protocol.absent_is_zero),
        "boundary_miou": mean_defined(boundary_iou),
        "boundary_iou": boundary_iou,
    }


def report_people(people: MatchedDetections, shares: NDArray[np.float64]) -> Report:
    """AP^p and PCP.

    Args:
        people: K predictions with the mean class IoU of their best ground truth.
        shares: (K, 9) share of that ground truth's classes whose IoU exceeds each threshold.
    """
    order = ranking(people.column("scores"))
    ious, targets = people.column("ious")[order], people.column("targets")[order]
    persons = int(people.truths[0])
    ap_p, pcp = np.zeros(len(THRESHOLDS)), np.full(len(THRESHOLDS), np.nan)
    for column, threshold in enumerate(THRESHOLDS):
        positive = true_positives(ious, targets, threshold, reuse=False)
        ap_p[column] = voc_average_precision(positive, persons, absent=np.nan)
        if persons:  # a person without a match counts 0
            pcp[column] = shares[order][positive, column].sum() / persons
    return {"thresholds": np.array(THRESHOLDS), **_spread("ap_p", ap_p), **_spread("pcp", pcp)}


def report_regions(regions: MatchedDetections, protocol: Protocol) -> Report:
    """AP^r: per class, then the mean over the classes where it is defined, then over the thresholds."""
    classes = regions.column("classes")
    absent = 0.0 if protocol.absent_is_zero else float("nan")
    table = np.zeros((len(regions.truths) - 1, len(THRESHOLDS)))
    for row in range(len(table)):
        order = np.flatnonzero(classes == row + 1)
        order = order[ranking(regions.column("scores")[order], nan_first=protocol.nan_first)]
        truths = int(regions.truths[row + 1])
        table[row] = _curve(regions, order, truths, THRESHOLDS, absent, protocol)
    ap_r = np.array([mean_defined(column) for column in table.T])
    return {**_spread("ap_r", ap_r), "ap_r_per_class": table}


def report_humans(humans: MatchedDetections, protocol: Protocol) -> Report:
    """AP^h."""
    order = ranking(humans.column("scores"), nan_first=protocol.nan_first, as_text=protocol.text_order)
    ap_h = _curve(humans, order, int(humans.truths[0]), HUMAN_THRESHOLDS, float("nan"), protocol)
    return {"human_thresholds": np.array(HUMAN_THRESHOLDS), **_spread("ap_h", ap_h, HUMAN_THRESHOLDS)}


def report_quality(rows: NDArray[np.float64], of: str = "") -> Report:
    """How well each score ranks people or parts, and how far it is from the IoU it stands for.

    Args:
        rows: (N, 5) scores in the order of SCORE_NAMES, then the true IoU.
        of: "" for people, "part_" for parts.
    """
    report: Report = {}
    true_iou = rows[:, -1]
    for column, name in enumerate(SCORE_NAMES):
        table = reliability(rows[:, column], true_iou)
        report[f"rank_correlation_{of}{name}"] = rank_correlation(rows[:, column], true_iou)
        report[f"ece_{of}{name}"] = calibration_error(table)
        report[f"reliability_{of}{name}"] = table
    report[f"mean_true_{of}iou"] = mean_defined(true_iou)
    return report


def _curve(
    detections: MatchedDetections,
    order: NDArray[np.int64],
    truths: int,
    thresholds: Sequence[float],
    absent: float,
    protocol: Protocol,
) -> NDArray[np.float64]:
    """(T,) AP of the detections in the given order."""
    ious, targets = detections.column("ious")[order], detections.column("targets")[order]
    positives = [true_positives(ious, targets, t, reuse=protocol.reuse_truth) for t in thresholds]
    return np.array([voc_average_precision(positive, truths, absent=absent) for positive in positives])


def _spread(name: str, values: NDArray[np.float64], thresholds: Sequence[float] = THRESHOLDS) -> Report:
    """A curve over thresholds under its three keys: the mean, at 0.5, and all of it."""
    middle = float(values[list(thresholds).index(0.5)])
    return {name: mean_defined(values), f"{name}_50": middle, f"{name}_per_threshold": values}


class ParsingEvaluator:
    """Accumulates an evaluation image by image; what it keeps grows with people and regions, not with pixels.

    Args:
        num_classes: C, background included; 2..255.
        protocol: "official" (the published code with its quirks) or "strict" (each quirk corrected).
        weights: QAM exponents of box, IoU and pixel score.
        nms_threshold: mean class IoU from which parsing NMS drops the worse of two people; 1 switches it off.
        score_threshold: people with a lower quality take no part in AP^p, AP^r and AP^h.
        paint_threshold: people with a lower box score are not painted into the semantic map.
    Raises:
        QanetError: an unknown protocol, a number of classes out of range.

    >>> category = np.zeros((4, 6), np.uint8)
    >>> category[1:3, 1:3] = 2
    >>> person = Prediction(category, 0.9, 0.8, 0.7, part_pixel_scores=np.array([0, 0.7]))
    >>> evaluator = ParsingEvaluator(num_classes=3, protocol="strict")
    >>> evaluator.add(Truth(category, human=(category > 0).astype(np.uint8)), [person])
    >>> report = evaluator.report()
    >>> report["images"], report["miou"], report["ap_p"], report["ap_r"]
    (1, 1.0, 1.0, 1.0)
    """

    def __init__(
        self,
        num_classes: int,
        protocol: str = "official",
        weights: tuple[float, float, float] = QAM_WEIGHTS,
        *,
        nms_threshold: float = 0.6,
        score_threshold: float = 0.01,
        paint_threshold: float = 0.3,
    ) -> None:
        if not 2 <= num_classes <= 255:
            raise QanetError("number of classes out of range", expected="2..255 with background", got=num_classes)
        self.num_classes = num_classes
        self.protocol: Protocol = find_protocol(protocol)
        self.weights = weights
        self.nms_threshold = nms_threshold
        self.score_threshold = score_threshold
        self.paint_threshold = paint_threshold
        self._images = 0
        self._unpredicted = 0
        self._predictions = 0
        self._histogram = np.zeros((num_classes, num_classes), np.int64)
        self._boundary = np.zeros((2, num_classes), np.int64)  # intersections, unions
        self._annotated_f: list[float] = []  # an image's, see `annotated_f_measure`
        self._people = MatchedDetections(np.zeros(1, np.int64))
        self._pcp: list[NDArray[np.float64]] = []  # (K, T) share of the matched person's parts above t
        self._regions = MatchedDetections(np.zeros(num_classes, np.int64))
        self._humans = MatchedDetections(np.zeros(1, np.int64))
        self._scores: list[NDArray[np.float64]] = []  # (N, 5) SCORE_NAMES, then the IoU with the best ground truth
        self._part_scores: list[NDArray[np.float64]] = []  # (M, 5) the same of people's parts

    def add(self, truth: Truth, predictions: Sequence[Prediction]) -> None:
        """Add one image.

        Args:
            truth: the image's ground truth.
            predictions: its predicted people in any order; may be empty.
        Raises:
            QanetError: shapes that differ, wrong dtypes, labels outside [0, C), part scores of the wrong length.
        """
        check_truth(truth, self._images)
        hw = (int(truth.category.shape[0]), int(truth.category.shape[1]))
        for index, prediction in enumerate(predictions):
            where = f"prediction {index} of image {self._images}"
            check_prediction(prediction, hw, self.num_classes, where)
        people = [crop_person(prediction, self.num_classes) for prediction in predictions]
        scores, part_quality = self._fuse(predictions)
        table = index_truth(truth, self.num_classes, void_people=self.protocol.void_is_error)
        match = match_people(table, people)

        skip = self.protocol.skip_unpredicted and not people
        if not skip:
            canvas = paint_semantic(people, scores[:, 0], hw, self.paint_threshold, self.protocol)
            counts = confusion(truth.category, canvas, self.num_classes)
            self._histogram += counts
            self._annotated_f.append(annotated_f_measure(counts))
            self._boundary += boundary_counts(truth.category, canvas, self.num_classes)

        kept = published_nms(people, scores[:, 3], hw[0] * hw[1], self.nms_threshold, self.protocol)
        kept = kept[~(scores[kept, 3] < self.score_threshold)]  # NaN stays
        truths = np.zeros(len(table.ids), np.int64)
        self._people.add(scores[kept, 3], match.iou[kept], match.target[kept], np.zeros(len(kept), np.int64), truths)
        self._pcp.append(match.shares[kept])
        if len(truths):
            self._scores.append(np.column_stack([scores, np.where(match.iou < 0, np.nan, match.iou)]))
            self._part_scores.append(part_rows(people, match, scores, predictions, part_quality))
        if not skip:
            order = kept[ascending(scores[kept, 3], self.protocol)]
            painted = paint_instances(people, order, hw, self.num_classes, self.protocol)
            known = None if self.protocol.void_is_error else truth.category < self.num_classes
            parts = match_parts(truth, painted, self.num_classes, known)
            _add(self._regions, parts, part_quality[parts.owners, parts.classes - 1])
            humans = match_humans(truth, painted, known)
            _add(self._humans, humans, scores[humans.owners, 3])
        self._images += 1
        self._unpredicted += not people
        self._predictions += len(people)

    def _fuse(self, predictions: Sequence[Prediction]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(N, 4) box, IoU, pixel and fused score of each person, and (N, C-1) fused part scores."""
        rows = [(p.box_score, p.iou_score, p.pixel_score) for p in predictions]
        raw = np.array(rows, np.float64).reshape(-1, 3)
        parts = np.array([p.part_pixel_scores for p in predictions], np.float64).reshape(-1, self.num_classes - 1)
        quality = fuse_quality(raw[:, 0], raw[:, 1], raw[:, 2], self.weights)
        part_quality = fuse_quality(raw[:, :1], raw[:, 1:2], parts, self.weights)
        return np.column_stack([raw, quality]), np.asarray(part_quality, np.float64)

    def score_rows(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(N, 5) of the people and (M, 5) of their parts so far: SCORE_NAMES, then the true IoU; nan without truth."""
        empty = np.zeros((0, len(SCORE_NAMES) + 1))
        return np.concatenate([empty, *self._scores]), np.concatenate([empty, *self._part_scores])

    def report(self) -> Report:
        """The metrics over the images added so far, as fractions; the module's docstring lists the keys."""
        report: Report = {
            "protocol": self.protocol.name,
            "num_classes": self.num_classes,
            "weights": tuple(float(weight) for weight in self.weights),
            "images": self._images,
            "images_without_prediction": self._unpredicted,
            "persons": int(self._people.truths[0]),
            "predictions": self._predictions,
        }
        report.update(report_maps(self._histogram, self._boundary, self.protocol))
        report["image_f_measure"] = mean_defined(np.array(self._annotated_f))
        shares = np.concatenate([np.zeros((0, len(THRESHOLDS))), *self._pcp])
        report.update(report_people(self._people, shares))
        report.update(report_regions(self._regions, self.protocol))
        report.update(report_humans(self._humans, self.protocol))
        people, parts = self.score_rows()
        report.update(report_quality(people))
        report.update(report_quality(parts, "part_"))
        return report


def part_rows(
    people: Sequence[CroppedPerson],
    match: PeopleMatch,
    scores: NDArray[np.float64],
    predictions: Sequence[Prediction],
    part_quality: NDArray[np.float64],
) -> NDArray[np.float64]:
    """The parts of N predicted people, each with its scores and its true IoU.

    Args:
        match: the people's best ground truths.
        scores: (N, 4) of the people, SCORE_NAMES.
        part_quality: (N, C-1) fused part scores.
    Returns:
        (M, 5): the person's box and IoU score, the part's pixel score and quality, and the IoU of the part's class
        with the person's best ground truth (0 where that lacks the class; nan where only void is covered).
    """
    if not people:
        return np.zeros((0, len(SCORE_NAMES) + 1))
    shown = np.array([person.counts[1:] > 0 for person in people])  # (N, C-1)
    owner, part = np.nonzero(shown)
    pixel = np.array([prediction.part_pixel_scores for prediction in predictions], np.float64)
    columns = (scores[owner, 0], scores[owner, 1], pixel[owner, part], part_quality[owner, part])
    return np.column_stack([*columns, match.class_iou[owner, part + 1]])


def _add(detections: MatchedDetections, found: RegionMatch, scores: NDArray[np.float64]) -> None:
    detections.add(scores, found.iou, found.target, found.classes, found.truth_classes)


def evaluate_parsing(
    truths: Iterable[Truth],
    predictions: Iterable[Sequence[Prediction]],
    num_classes: int,
    protocol: str = "official",
    weights: tuple[float, float, float] = QAM_WEIGHTS,
    *,
    nms_threshold: float = 0.6,
    score_threshold: float = 0.01,
    paint_threshold: float = 0.3,
) -> Report:
    """Evaluate a data set: `ParsingEvaluator` over pairs of a ground truth and its list of predictions.

    Both may be generators; one image is held at a time. Arguments and errors are those of `ParsingEvaluator`
    and its `add`, the result that of `report`.

    Raises:
        QanetError: also where the two differ in length.

    >>> category = np.zeros((4, 6), np.uint8)
    >>> category[1:3, 1:3] = 1
    >>> truth = Truth(category, human=category)
    >>> person = Prediction(category, 0.9, 0.8, 0.7, part_pixel_scores=np.array([0.7]))
    >>> round(evaluate_parsing([truth, truth], [[person], []], num_classes=2, protocol="strict")["ap_p"], 2)
    0.5
    """
    evaluator = ParsingEvaluator(
        num_classes,
        protocol,
        weights,
        nms_threshold=nms_threshold,
        score_threshold=score_threshold,
        paint_threshold=paint_threshold,
    )
    missing = object()
    for count, (truth, people) in enumerate(zip_longest(truths, predictions, fillvalue=missing)):
        if truth is missing or people is missing:
            short = "ground truth" if truth is missing else "list of predictions"
            raise QanetError(
                f"image {count} has no {short}",
                expected="a Truth and a list of Prediction for every image",
                got=f"{count} of the one and more of the other",
                next_command="pass an empty list for an image without a prediction",
            )
        evaluator.add(truth, people)  # type: ignore[arg-type]
    return evaluator.report()
