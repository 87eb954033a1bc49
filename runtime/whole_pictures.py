"""People of a network that takes whole pictures: one run of the network, then the labels and scores in each box."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from qanet.bundle import Bundle
from qanet.quality import PixelScores
from qanet.runtime.backends.base import Engine
from qanet.runtime.detectors.base import Detections, WholeImage
from qanet.runtime.kernels import Kernels
from qanet.runtime.timing import StageTimes


def scores_within(
    engine: Engine, kernels: Kernels, image: NDArray[np.uint8], found: Detections, bundle: Bundle, times: StageTimes
) -> tuple[list[PixelScores], NDArray[np.float32]]:
    """Labels and pixel scores of what lies in each box of a BGR picture; a pixel in two boxes belongs to both.

    Args:
        engine: with `logits` and `iou_scores`.
        found: N people.
        times: receives one sample of "crop", "engine" and "tail".
    Returns:
        N scores of one person each, and the network's IoU of the picture, (1,).
    """
    image_hw, picture = (image.shape[0], image.shape[1]), WholeImage().detect(image)
    with times.stage("crop"):
        crop = kernels.crop_people(image, picture.boxes, bundle.input_hw)
    with times.stage("engine"):
        outputs = engine.run(crop, picture.scores)
    scored = []
    with times.stage("tail"):
        for box in found.boxes:
            logits, where = logits_within(outputs["logits"], box, image_hw)
            scored.append(cut_to_box(kernels.pixel_score(logits, where[None], image_hw, bundle.threshold), box))
    return scored, outputs["iou_scores"]


def logits_within(
    logits: NDArray[np.float32], box: NDArray[np.float32], image_hw: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The cells of a whole picture's logits that a box touches, and their region in the picture.

    Args:
        logits: (1, C, h, w) of the picture.
        box: (4,) xyxy pixels.
        image_hw: (H, W) pixels.
    Returns:
        (1, C, h', w') and (4,) xyxy pixels.
    """
    h, w = logits.shape[2:]
    scale = np.array([image_hw[1] / w, image_hw[0] / h] * 2, np.float64)
    x0, y0 = np.clip(np.floor(box[:2] / scale[:2]), 0, (w - 1, h - 1)).astype(int)
    x1, y1 = np.clip(np.ceil(box[2:] / scale[2:]), (x0 + 1, y0 + 1), (w, h)).astype(int)
    region = np.array([x0, y0, x1, y1]) * scale
    return np.ascontiguousarray(logits[:, :, y0:y1, x0:x1]), region.astype(np.float32)


def cut_to_box(scored: PixelScores, box: NDArray[np.float32]) -> PixelScores:
    """The scores of one person with labels inside the box alone, to whole pixels."""
    x0, y0, x1, y1 = (int(v) for v in scored.rois[0])
    left, top = (max(low, int(np.floor(v))) for low, v in zip((x0, y0), box[:2].tolist()))
    right, bottom = (min(high, int(np.ceil(v))) for high, v in zip((x1, y1), box[2:].tolist()))
    labels = scored.labels[0][top - y0 : bottom - y0, left - x0 : right - x0]
    roi = np.array([[left, top, max(right, left), max(bottom, top)]], scored.rois.dtype)
    return replace(scored, labels=[labels], rois=roi)
