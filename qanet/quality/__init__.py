"""Quality: pixel scores of parsing and of masks, and QAM, their fusion with the other scores; NumPy only.

The reference, and the only definition of what these scores mean.
"""

from qanet.quality.masks import MASK_THRESHOLD, MaskScores, mask_score, probability_score
from qanet.quality.pixel_score import (
    MULTI_SCALE,
    PIXEL_SCORE_THRESHOLD,
    Look,
    LookScores,
    PixelScores,
    average_looks,
    check_scales,
    pixel_score,
    score_looks,
)
from qanet.quality.qam import QAM_WEIGHTS, clamp_iou, fuse_quality
from qanet.quality.sampling import UPSAMPLE, check_arguments, region_of, unflip

__all__ = [
    "MASK_THRESHOLD",
    "MULTI_SCALE",
    "PIXEL_SCORE_THRESHOLD",
    "QAM_WEIGHTS",
    "UPSAMPLE",
    "Look",
    "LookScores",
    "MaskScores",
    "PixelScores",
    "average_looks",
    "check_arguments",
    "check_scales",
    "clamp_iou",
    "fuse_quality",
    "mask_score",
    "pixel_score",
    "probability_score",
    "region_of",
    "score_looks",
    "unflip",
]
