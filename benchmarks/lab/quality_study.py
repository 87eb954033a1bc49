"""The quality study: every box is parsed once, and every setting of the scores is evaluated on the same labels.

Settings: box score alone, with the pixel score, with the IoU score, and the full QAM; a grid of exponents; a sweep of
the pixel threshold.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.datasets import AnnotatedImage
from qanet.metrics import PROTOCOLS, ParsingEvaluator, Prediction, ScoreSweep, Setting, Truth
from qanet.quality import QAM_WEIGHTS, LookScores, clamp_iou, score_looks
from qanet.runtime.detectors.base import Detections
from qanet.runtime.parser import MAX_BATCH, Parser
from qanet.runtime.tta import look

Weights = tuple[float, float, float]

BOX, PIXEL, IOU, QAM = "box", "box + pixel", "box + IoU", "box + IoU + pixel (QAM)"
MAIN: dict[str, Weights] = {
    BOX: (1, 0, 0),
    PIXEL: (1, 0, QAM_WEIGHTS[2]),
    IOU: (1, QAM_WEIGHTS[1], 0),
    QAM: QAM_WEIGHTS,
}
GRID_IOU = (0.0, 0.5, 1.0, 2.0)  # exponents; that of the box is 1, since only their ratios order people
GRID_PIXEL = (0.0, 0.5, 1.0, 2.0, 3.0, 5.0)
WITHOUT_BOX: tuple[Weights, ...] = ((0, 1, 0), (0, 0, 1), (0, QAM_WEIGHTS[1], QAM_WEIGHTS[2]))
THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)  # T of the pixel score
CLAIMED_AP_R_GAIN = 0.10  # arXiv 2103.05997, abstract: more than +10 AP^r from QAM
FIGURES = (
    "ap_p",
    "ap_p_50",
    "pcp_50",
    "ap_r",
    "ap_r_50",
    "rank_correlation_quality",
    "rank_correlation_part_quality",
    "ece_quality",
    "ece_part_quality",
)
SCORES = ("box", "iou", "pixel", "quality")
_MAPS = ("miou", "pixel_accuracy", "mean_accuracy", "mean_recall", "mean_f_measure", "boundary_miou")


@dataclass(frozen=True)
class Plan:
    """The settings by the table that shows them, each with the cells that name it there."""

    thresholds: tuple[float, ...]  # in the order of the sweep's variants
    base: int  # index of the bundle's own
    rows: tuple[tuple[str, dict[str, Any], Setting], ...]

    @property
    def settings(self) -> list[Setting]:
        """All settings, in the order of the rows."""
        return [setting for _, _, setting in self.rows]

    def main_index(self, protocol: str, scores: str) -> int:
        """Index of the setting in a row of the main table."""
        return next(
            index
            for index, (table, cells, setting) in enumerate(self.rows)
            if table == "main" and cells["scores"] == scores and setting.protocol == protocol
        )


def plan(threshold: float, protocol: str = "official") -> Plan:
    """What is evaluated.

    Args:
        threshold: T of the bundle.
        protocol: of the grid and of the sweep; the main table has both.
    """
    thresholds = tuple(sorted({*THRESHOLDS, threshold}))
    base = thresholds.index(threshold)
    rows: list[tuple[str, dict[str, Any], Setting]] = []
    for name in PROTOCOLS:
        rows += [("main", {"scores": scores}, Setting(weights, name, base)) for scores, weights in MAIN.items()]
    grid = [(1.0, b, g) for b in GRID_IOU for g in GRID_PIXEL] + list(WITHOUT_BOX)
    rows += [("grid", {}, Setting(weights, protocol, base)) for weights in grid]
    rows += [
        ("thresholds", {"threshold": value}, Setting(QAM_WEIGHTS, protocol, variant))
        for variant, value in enumerate(thresholds)
    ]
    return Plan(thresholds, base, tuple(rows))


@dataclass(frozen=True, eq=False)
class ParsedImage:
    """One image: its truth, its N predicted people, and their pixel scores at V thresholds."""

    truth: Truth
    predictions: list[Prediction]  # with the scores of the threshold of index `base`
    pixel_scores: NDArray[np.float32]  # (N, V)
    part_scores: NDArray[np.float32]  # (N, V, C - 1)


def evaluate(images: Iterable[ParsedImage], num_classes: int, chosen: Plan) -> dict[str, Any]:
    """Run the study.

    Args:
        images: parsed at `chosen.thresholds`.
        num_classes: C, background included.
    Returns:
        Plain data but for arrays: counts; "maps", the semantic map's metrics, which no score but the box's changes;
        the tables "main", "grid" and "thresholds"; "gains" of QAM over the box score, that in AP^r with the ends of its
        95 % interval over resampled images; "scores", what each score is worth, with its reliability diagram.
    """
    sweep = ScoreSweep(num_classes, chosen.settings)
    whole = {name: ParsingEvaluator(num_classes, name) for name in PROTOCOLS}
    for image in images:
        sweep.add(image.truth, image.predictions, image.pixel_scores, image.part_scores)
        for evaluator in whole.values():
            evaluator.add(image.truth, image.predictions)
    reports = {name: evaluator.report() for name, evaluator in whole.items()}
    first = reports["official"]
    document: dict[str, Any] = {key: first[key] for key in ("images", "persons", "predictions")}
    document["maps"] = {name: {key: report[key] for key in _MAPS} for name, report in reports.items()}
    tables: dict[str, list[dict[str, Any]]] = {"main": [], "grid": [], "thresholds": []}
    for (table, cells, setting), report in zip(chosen.rows, sweep.reports()):
        row = {"protocol": setting.protocol, "weights": list(setting.weights)}
        tables[table].append({**cells, **row, **{key: report[key] for key in FIGURES}})
    document |= tables
    document["gains"] = gains(tables["main"])
    for gain in document["gains"]:
        pair = (chosen.main_index(gain["protocol"], scores) for scores in (BOX, QAM))
        gain["ap_r_interval"] = sweep.ap_r_gain_interval(*pair)
    document["scores"] = [
        {
            "of": "parts" if of else "people",
            "score": name,
            "true_iou": first[f"mean_true_{of}iou"],
            "rank_correlation": first[f"rank_correlation_{of}{name}"],
            "ece": first[f"ece_{of}{name}"],
            "reliability": first[f"reliability_{of}{name}"],
        }
        for of in ("", "part_")
        for name in SCORES
    ]
    return document


def gains(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What QAM adds to the box score alone, per protocol, and whether the paper's claim holds."""
    found = []
    for protocol in PROTOCOLS:
        by_name = {row["scores"]: row for row in rows if row["protocol"] == protocol}
        gain = {key: by_name[QAM][key] - by_name[BOX][key] for key in ("ap_p", "ap_p_50", "pcp_50", "ap_r", "ap_r_50")}
        verdict = bool(gain["ap_r"] > CLAIMED_AP_R_GAIN)
        found.append({"protocol": protocol, **gain, "claimed_ap_r": CLAIMED_AP_R_GAIN, "reproduced": verdict})
    return found


def parse_images(
    parser: Parser, images: Iterable[AnnotatedImage], thresholds: Sequence[float], base: int = 0
) -> Iterator[ParsedImage]:
    """Parse the boxes of each image without suppression, which is part of the study.

    Args:
        parser: a bundle, its engine and the views that are averaged.
        images: with the detector's boxes and scores.
        thresholds: V thresholds T of the pixel score.
        base: index of the threshold whose scores the predictions carry.
    """
    step = MAX_BATCH // (1 + parser.augmentation.flip)
    for scene in images:
        found = Detections(np.asarray(scene.boxes, np.float32), np.asarray(scene.box_scores, np.float32))
        people: list[Prediction] = []
        pixel = [np.zeros((0, len(thresholds)), np.float32)]
        parts = [np.zeros((0, len(thresholds), parser.bundle.labels.num_classes - 1), np.float32)]
        for start in range(0, len(found), step):
            batch = found.take(slice(start, start + step))
            scored, iou = _parse(parser, scene.image, batch, thresholds)
            people += _predictions(batch, scored, iou, base)
            pixel.append(scored.pixel_scores)
            parts.append(scored.part_scores)
        yield ParsedImage(scene.truth, people, np.concatenate(pixel), np.concatenate(parts))


def _parse(
    parser: Parser, image: NDArray[np.uint8], found: Detections, thresholds: Sequence[float]
) -> tuple[LookScores, NDArray[np.float32]]:
    """Scores of one batch and its clamped IoU scores (N,)."""
    bundle = parser.bundle
    views, iou = look(parser.engine, parser.kernels, image, found, bundle, parser.augmentation, parser.times)
    with parser.times.stage("tail"):
        size = (image.shape[0], image.shape[1])
        return score_looks(views, size, thresholds, bundle.labels.flip_pairs), clamp_iou(iou)


def _predictions(found: Detections, scored: LookScores, iou: NDArray[np.float32], base: int) -> list[Prediction]:
    box = np.clip(found.scores, 0, 1)
    return [
        Prediction(
            scored.labels[i],
            float(box[i]),
            float(iou[i]),
            float(scored.pixel_scores[i, base]),
            scored.part_scores[i, base],
            scored.rois[i].tolist(),
        )
        for i in range(len(found))
    ]
