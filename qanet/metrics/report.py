"""The report: from the numbers kept per image to the metrics, under the keys users see. All are fractions.

    protocol, num_classes, weights; images, images_without_prediction, persons, predictions: what was evaluated
    miou, pixel_accuracy, mean_accuracy, iou (C,), accuracy (C,): the semantic map, background included
    mean_recall, mean_f_measure, f_measure (C,): the same map; recall over the classes of the ground truth only
    boundary_miou, boundary_iou (C,): the same map within 2 % of the diagonal around its contours
    ap_p, ap_p_50, ap_p_per_threshold (9,) and pcp, pcp_50, pcp_per_threshold (9,): people, at `thresholds`
    ap_r, ap_r_50, ap_r_per_threshold (9,), ap_r_per_class (C-1, 9): (person, class) regions, at `thresholds`
    ap_h, ap_h_50, ap_h_per_threshold (10,): people's masks, at `human_thresholds`
    rank_correlation_NAME, ece_NAME, reliability_NAME (10, 3): how far a score can be trusted, NAME one of box, iou,
        pixel, quality: Spearman's correlation with the mean class IoU of the person with its best ground truth,
        expected calibration error against it, and the reliability diagram (count, mean score, mean true IoU a bin),
        over all predictions (before NMS) of images with people; mean_true_iou: the mean of that IoU
    rank_correlation_part_NAME, ece_part_NAME, reliability_part_NAME, mean_true_part_iou: the same over the parts that
        these people show; box and iou are the person's, pixel and quality the part's, the truth is its class's IoU

A number that is not defined is nan.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.metrics.curves import (
    Detections,
    average_precision,
    calibration_error,
    mean_defined,
    rank_correlation,
    ranking,
    reliability,
    true_positives,
)
from qanet.metrics.protocol import Protocol
from qanet.metrics.semantic import summarize

Report = dict[str, Any]

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)  # AP^p, PCP, AP^r: IoU strictly above
HUMAN_THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)  # AP^h
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


def report_people(people: Detections, shares: NDArray[np.float64]) -> Report:
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
        ap_p[column] = average_precision(positive, persons, absent=np.nan)
        if persons:  # a person that nobody matched counts 0
            pcp[column] = shares[order][positive, column].sum() / persons
    return {"thresholds": np.array(THRESHOLDS), **_spread("ap_p", ap_p), **_spread("pcp", pcp)}


def report_regions(regions: Detections, protocol: Protocol) -> Report:
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


def report_humans(humans: Detections, protocol: Protocol) -> Report:
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
    detections: Detections,
    order: NDArray[np.int64],
    truths: int,
    thresholds: Sequence[float],
    absent: float,
    protocol: Protocol,
) -> NDArray[np.float64]:
    """(T,) AP of the detections in the given order."""
    ious, targets = detections.column("ious")[order], detections.column("targets")[order]
    positives = [true_positives(ious, targets, t, reuse=protocol.reuse_truth) for t in thresholds]
    return np.array([average_precision(positive, truths, absent=absent) for positive in positives])


def _spread(name: str, values: NDArray[np.float64], thresholds: Sequence[float] = THRESHOLDS) -> Report:
    """A curve over thresholds under its three keys: the mean, at 0.5, and all of it."""
    middle = float(values[list(thresholds).index(0.5)])
    return {name: mean_defined(values), f"{name}_50": middle, f"{name}_per_threshold": values}
