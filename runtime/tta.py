"""Test-time augmentation: results averaged over mirrored crops and over boxes of other sizes.

Source: method, sections Pixel score and Losses and recipe (Test), and the published test code (soeaver/QANet,
TestEngine): every scale gives a crop and, with flip, its mirror image; probabilities are averaged at image resolution,
and the IoU score is the mean of the outputs over all crops (of the graph's, which are already clamped to [0, 1]). A
scale grows or shrinks the BOX, not the image.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qanet.bundle import Bundle
from qanet.errors import QanetError
from qanet.geometry import CROP_SCALE
from qanet.quality import MULTI_SCALE, Look, PixelScores, average_looks, check_scales
from qanet.runtime.backends.base import Engine
from qanet.runtime.detectors.base import Detections
from qanet.runtime.kernels import Kernels
from qanet.runtime.timing import StageTimes

__all__ = ["MULTI_SCALE", "PLAIN", "Augmentation", "check_augmentation", "look", "score_people"]


@dataclass(frozen=True)
class Augmentation:
    """Which views of a person are averaged.

    Attributes:
        flip: also the mirrored crop.
        scales: factors of the crop box; 1 is the box that the network was trained on.
    """

    flip: bool = False
    scales: tuple[float, ...] = (1.0,)

    @property
    def views(self) -> int:
        """Runs of the network per person."""
        return len(self.scales) * (1 + self.flip)

    @property
    def is_plain(self) -> bool:
        """Whether the crop itself is the only view."""
        return not self.flip and self.scales == (1.0,)


PLAIN = Augmentation()


def check_augmentation(flip: bool, scales: Sequence[float], tail: str = "kernel") -> Augmentation:
    """The augmentation of a parser.

    Raises:
        QanetError: invalid scales, or a tail that cannot average: the graph tail decides labels inside the network,
            crop by crop.
    """
    factors = check_scales(scales)
    chosen = Augmentation(bool(flip), factors)
    if tail != "kernel" and not chosen.is_plain:
        raise QanetError(
            f"the {tail} tail cannot average views",
            expected="the kernel tail with flip or scales",
            got=f"flip={chosen.flip}, scales={factors}",
            next_command='load(..., tail="kernel")',
        )
    return chosen


def look(
    engine: Engine,
    kernels: Kernels,
    image: NDArray[np.uint8],
    found: Detections,
    bundle: Bundle,
    augmentation: Augmentation,
    times: StageTimes,
) -> tuple[list[Look], NDArray[np.float32]]:
    """Run every view of some people; the crops of a scale and their mirror images share a batch of the engine.

    Args:
        image: (H, W, 3) uint8 BGR.
        found: N people.
        bundle: of the network; it gives the crops.
        times: receives one sample of "crop" and of "engine".
    Returns:
        The views in the order of the scales, each before its mirror image, and (N,) float32 mean IoU scores.
    """
    hw = image.shape[0], image.shape[1]
    boxes = [bundle.crop_boxes(found.boxes, hw, CROP_SCALE * scale) for scale in augmentation.scales]
    with times.stage("crop"):
        batches = [kernels.crop_people(image, where, bundle.input_hw) for where in boxes]
        if augmentation.flip:
            batches = [np.concatenate([crops, crops[:, :, ::-1]]) for crops in batches]
    box_scores = np.tile(found.scores, 1 + augmentation.flip)
    with times.stage("engine"):
        outputs = [engine.run(crops, box_scores) for crops in batches]
    views = []
    for where, output in zip(boxes, outputs):
        halves = np.split(output["logits"], 1 + augmentation.flip)
        views += [Look(logits, where, mirrored=bool(number)) for number, logits in enumerate(halves)]
    iou = np.mean([np.split(output["iou_scores"], 1 + augmentation.flip) for output in outputs], (0, 1))
    return views, iou.astype(np.float32)


def score_people(
    kernels: Kernels,
    views: Sequence[Look],
    image_hw: tuple[int, int],
    threshold: float,
    flip_pairs: Sequence[tuple[int, int]],
) -> PixelScores:
    """Labels and pixel scores of the views of `look`; by the fastest kernel if all views share one box."""
    if any(not np.array_equal(view.boxes, views[0].boxes) for view in views):
        return average_looks(views, image_hw, threshold, flip_pairs)
    mirrored = next((view.logits for view in views if view.mirrored), None)
    return kernels.pixel_score(
        views[0].logits, views[0].boxes, image_hw, threshold, flipped_logits=mirrored, flip_pairs=flip_pairs
    )
