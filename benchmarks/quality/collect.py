"""Every detected box through the network once: labels, and pixel scores at every threshold of the study."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qanet.datasets import AnnotatedImage
from qanet.metrics import Prediction, Truth
from qanet.quality import ViewScores, clamp_iou, score_views
from qanet.runtime.detectors.base import Detections
from qanet.runtime.parser import MAX_BATCH, Parser
from qanet.runtime.tta import look


@dataclass(frozen=True, eq=False)
class ParsedImage:
    """One image: its truth, its N predicted people, and their pixel scores at V thresholds."""

    truth: Truth
    predictions: list[Prediction]  # with the scores of the threshold of index `base`
    pixel_scores: NDArray[np.float32]  # (N, V)
    part_scores: NDArray[np.float32]  # (N, V, C - 1)


def parse_images(
    parser: Parser, images: Iterable[AnnotatedImage], thresholds: Sequence[float], base: int = 0
) -> Iterator[ParsedImage]:
    """Parse the boxes of each image, nobody suppressed: NMS is part of what is studied.

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
) -> tuple[ViewScores, NDArray[np.float32]]:
    """Scores of one batch and its clamped IoU scores (N,)."""
    bundle = parser.bundle
    views, iou = look(parser.engine, image, found, bundle.input_hw, parser.augmentation, parser.times)
    with parser.times.stage("tail"):
        size = (image.shape[0], image.shape[1])
        return score_views(views, size, thresholds, bundle.labels.flip_pairs), clamp_iou(iou)


def _predictions(found: Detections, scored: ViewScores, iou: NDArray[np.float32], base: int) -> list[Prediction]:
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
