"""Results ranked again by QAM: a pixel score for each from its probability map, fused with its other scores.

The definition of `qanet rescore`; `qanet.coco.results` describes the formats of the maps.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.coco.annotations import run_length_size, segmentation_mask
from qanet.coco.results import ARRAY, Result, inline_map, unit_interval, xyxy
from qanet.errors import QanetError
from qanet.quality import MASK_THRESHOLD, MaskScores, fuse_quality, probability_score

_IOU_KEYS = ("iou_score", "mask_iou")
_CHECK_FIRST, _CHECK_EVERY = 16, 97  # which results are compared with their maps
_LEAST_AGREEMENT = 0.75  # median IoU: rounding and other thresholds stay above, maps in another order fall below


@dataclass
class Scored:
    """Results in their order, without maps, and the three scores of each."""

    results: list[Result]
    box: NDArray[np.float32]  # (N,)
    iou: NDArray[np.float32] | None  # (N,); None where the results have none
    pixel: NDArray[np.float32]  # (N,)

    def quality(self, weights: tuple[float, float, float]) -> NDArray[np.float32]:
        """(N,) Q; without predicted IoUs their exponent is 0."""
        a, b, g = weights
        if self.iou is None:
            return fuse_quality(self.box, np.ones_like(self.box), self.pixel, (a, 0.0, g))
        return fuse_quality(self.box, self.iou, self.pixel, (a, b, g))

    def rescored(self, quality: NDArray[np.float32]) -> Iterator[Result]:
        """The results with Q as their score, and their box and pixel scores."""
        for result, box, pixel, score in zip(self.results, self.box, self.pixel, quality):
            yield {**result, "score": _short(score), "box_score": _short(box), "pixel_score": _short(pixel)}


class _Agreement:
    """Whether the maps belong to the results: a map cut at 0.5 must nearly be the result's own mask."""

    def __init__(self) -> None:
        self.overlaps: list[float] = []

    def add(self, result: Result, scored: MaskScores) -> None:
        size = run_length_size(result.get("segmentation"))
        mask = None if size is None else segmentation_mask(result["segmentation"], size)
        if mask is None or not mask.any():
            return
        ours = scored.full(0)
        self.overlaps.append(float((ours & mask).sum() / (ours | mask).sum()))

    def check(self, source: str) -> None:
        if self.overlaps and not np.median(self.overlaps) >= _LEAST_AGREEMENT:
            raise QanetError(
                f"the probabilities of {source} are not those of these results",
                expected=f"maps that give the masks: a median IoU of {_LEAST_AGREEMENT} or more",
                got=f"{np.median(self.overlaps):.2f} over {len(self.overlaps)} results",
                next_command="save the maps in the order of the results, each over its own bbox",
            )


def score_results(
    results: Iterable[Result],
    maps: Iterator[NDArray[np.float32]] | None,
    source: str,
    image_sizes: dict[Any, tuple[int, int]],
    threshold: float = MASK_THRESHOLD,
) -> Scored:
    """Pixel scores of results, with one map in memory at a time.

    Args:
        results: as `qanet.coco.results.stream_results` yields them.
        maps: one probability map per result, in the same order; None: each result has its own, or a `pixel_score`.
        source: what the results are called in an error.
        image_sizes: image_id -> (H, W) pixels, for results whose segmentation has no size.
        threshold: t of the pixel score.
    Raises:
        QanetError: a count, a key or a number that does not fit, by the result's place.
    """
    kept: list[Result] = []
    scores: list[tuple[float, float, float]] = []
    agreement = _Agreement()
    for index, result in enumerate(results):
        name = f"{source}: result {index}"
        given = result.pop(ARRAY, None)
        if maps is not None:
            probabilities = next(maps, None)
            if probabilities is None:
                raise QanetError(f"{source} has more results than there are maps", expected=f"{index} results")
        else:
            probabilities = None if given is None else inline_map(given, f"{name}: {ARRAY}")
        if probabilities is None:
            pixel = _given_pixel_score(result, name)
        else:
            scored = _paste(result, probabilities, name, image_sizes, threshold)
            pixel = 0.0 if scored is None else float(scored.pixel_scores[0])
            if scored is not None and (index < _CHECK_FIRST or index % _CHECK_EVERY == 0):
                agreement.add(result, scored)
        box = unit_interval(result.get("box_score", result["score"]), f"{name}: box_score")
        scores.append((box, _predicted_iou(result, name), pixel))
        kept.append(result)
    if maps is not None and next(maps, None) is not None:
        raise QanetError(f"{source} has fewer results than there are maps", expected="one map each", got=len(kept))
    agreement.check(source)
    columns = np.array(scores, np.float32).reshape(-1, 3)
    without = np.isnan(columns[:, 1])
    if without.any() and not without.all():
        raise QanetError(
            f"{source}: result {int(np.flatnonzero(without)[0])} has no predicted IoU while others have",
            expected=f"{' or '.join(_IOU_KEYS)} in every result or in none",
            got=f"{int(without.sum())} of {len(kept)} without",
        )
    return Scored(kept, columns[:, 0], None if without.all() else columns[:, 1], columns[:, 2])


def _paste(
    result: Result, probabilities: NDArray[np.float32], name: str, sizes: dict[Any, tuple[int, int]], threshold: float
) -> MaskScores | None:
    """A result's mask and pixel score at image resolution; None for a box without area."""
    x0, y0, x1, y1 = xyxy(result, name)
    image_hw = run_length_size(result.get("segmentation")) or sizes.get(result["image_id"])
    if image_hw is None:
        raise QanetError(
            f"{name} does not tell its image's size",
            expected='a segmentation {"size": [H, W], "counts"}',
            got=repr(result.get("segmentation"))[:60],
            next_command="give --annotations, which know the sizes",
        )
    box = np.array([[x0, y0, x1, y1]], np.float32)
    if not (box[0, 2:] > box[0, :2]).all():
        return None
    return probability_score(probabilities[None], box, image_hw, threshold)


def _given_pixel_score(result: Result, name: str) -> float:
    if "pixel_score" not in result:
        raise QanetError(
            f"{name} comes without probabilities",
            got=", ".join(result),
            next_command="qanet rescore --help",
            expected=f"a key {ARRAY} or pixel_score, or --probabilities FILE.npz",
        )
    return unit_interval(result["pixel_score"], f"{name}: pixel_score")


def _predicted_iou(result: Result, name: str) -> float:
    """The predicted mask IoU in [0, 1], nan where there is none: an IoU head is unbounded and its output clamped."""
    key = next((key for key in _IOU_KEYS if key in result), None)
    if key is None:
        return math.nan
    value = result[key]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise QanetError(f"{name}: {key} is not finite", expected="a number", got=value)
    return min(max(float(value), 0.0), 1.0)


def _short(value: np.floating) -> float:
    """The shortest decimal that is this float32."""
    return float(str(np.float32(value)))
