"""Quality: pixel scores of parsing, masks and keypoints, and QAM, their fusion with the other scores; NumPy only.

The reference, and the only definition of what these scores mean.
"""

from qanet.quality.arguments import check_arguments
from qanet.quality.fusion import QAM_WEIGHTS, clamp_iou, fuse_quality
from qanet.quality.keypoints import KEYPOINT_THRESHOLD, KeypointScores, keypoint_score
from qanet.quality.masks import MASK_THRESHOLD, MaskScores, mask_score, probability_score
from qanet.quality.pixel_score import PIXEL_SCORE_THRESHOLD, PixelScores, pixel_score
from qanet.quality.sampling import UPSAMPLE, region_of, unflip
from qanet.quality.views import MULTI_SCALE, View, ViewScores, average_views, check_scales, score_views

__all__ = [
    "KEYPOINT_THRESHOLD",
    "MASK_THRESHOLD",
    "MULTI_SCALE",
    "PIXEL_SCORE_THRESHOLD",
    "QAM_WEIGHTS",
    "UPSAMPLE",
    "KeypointScores",
    "MaskScores",
    "PixelScores",
    "View",
    "ViewScores",
    "average_views",
    "check_arguments",
    "check_scales",
    "clamp_iou",
    "fuse_quality",
    "keypoint_score",
    "mask_score",
    "pixel_score",
    "probability_score",
    "region_of",
    "score_views",
    "unflip",
]
