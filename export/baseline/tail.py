"""The pixel score as the official code computes it, in PyTorch: the baseline every faster form is measured against.

Source: soeaver/QANet at 61615c4, TestEngine.parsing_inference and get_parsing_results. Logits are upsampled and
softmaxed at crop resolution, every person's C probability maps are pasted to the whole image by grid_sample, and a loop
over the classes takes the sums. Its time and memory grow with N x C x H x W of the image, whatever the persons' size.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from torch import Tensor

from qanet.quality import PIXEL_SCORE_THRESHOLD, UPSAMPLE, PixelScores, check_arguments

_EPSILON = 1e-6


def pixel_score(
    logits: ArrayLike,
    boxes: ArrayLike,
    image_size: tuple[int, int],
    threshold: float = PIXEL_SCORE_THRESHOLD,
    flipped_logits: ArrayLike | None = None,
    flip_pairs: Sequence[tuple[int, int]] = (),
) -> PixelScores:
    """Labels and pixel scores of N persons; arguments and errors as `qanet.quality.pixel_score`.

    Returns:
        Scores whose regions are the whole image, since that is what is computed.
    """
    maps, where = check_arguments(logits, boxes, image_size, threshold)
    height, width = (int(side) for side in image_size)
    with torch.inference_mode():
        pasted = paste(probabilities(torch.from_numpy(maps)), torch.from_numpy(where), (height, width))
        if flipped_logits is not None:
            mirrored, _ = check_arguments(flipped_logits, boxes, image_size, threshold, "flipped_logits")
            other = _unflip(probabilities(torch.from_numpy(mirrored)), flip_pairs)
            pasted = (pasted + paste(other, torch.from_numpy(where), (height, width))) / 2
        labels, pixel, part = score(pasted, threshold)
    rois = np.tile(np.array([0, 0, width, height], np.int32), (len(maps), 1))
    return PixelScores(rois, list(labels.numpy()), pixel.numpy(), part.numpy(), (height, width))


def probabilities(logits: Tensor) -> Tensor:
    """(N, C, h, w) logits -> (N, C, 4h, 4w) class probabilities."""
    return F.interpolate(logits, scale_factor=UPSAMPLE, mode="bilinear", align_corners=False).softmax(1)


def paste(maps: Tensor, boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
    """(N, C, ch, cw) maps of crops at boxes (N, 4) xyxy pixels -> (N, C, H, W) of the image, zero outside the crops."""
    height, width = image_size
    left, top, right, bottom = boxes.unbind(1)
    x = torch.arange(width, dtype=torch.float32) + 0.5
    y = torch.arange(height, dtype=torch.float32) + 0.5
    grid_x = (x[None] - left[:, None]) / (right - left)[:, None] * 2 - 1  # (N, W), -1 .. 1 over the crop
    grid_y = (y[None] - top[:, None]) / (bottom - top)[:, None] * 2 - 1  # (N, H)
    count = len(maps)
    grid = torch.stack(
        [grid_x[:, None, :].expand(count, height, width), grid_y[:, :, None].expand(count, height, width)], 3
    )
    return F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def score(pasted: Tensor, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
    """(N, C, H, W) probabilities -> labels (N, H, W) uint8, pixel scores (N,), part scores (N, C - 1)."""
    num_classes = pasted.shape[1]
    confidence, winner = pasted.max(1)
    certain = (confidence >= threshold).to(confidence.dtype)
    weighted = confidence * certain
    pixel = weighted.sum((1, 2)) / certain.sum((1, 2)).clamp(min=_EPSILON)
    part = confidence.new_zeros((len(pasted), num_classes - 1))
    for index in range(1, num_classes):
        here = (winner == index).to(confidence.dtype)
        part[:, index - 1] = (weighted * here).sum((1, 2)) / (certain * here).sum((1, 2)).clamp(min=_EPSILON)
    labels = torch.where(confidence >= 1 / num_classes, winner, 0).to(torch.uint8)
    return labels, pixel, part


def _unflip(maps: Tensor, flip_pairs: Sequence[tuple[int, int]]) -> Tensor:
    order = list(range(maps.shape[1]))
    for left, right in flip_pairs:
        order[left], order[right] = right, left
    return maps[:, order].flip(3)
