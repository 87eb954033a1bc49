"""The whole parser as the official code runs it, in PyTorch: the baseline of `qanet benchmark --baseline`.

The network runs in FP32 on the CPU with the bundle's own weights. Then come the official pixel scores (soeaver/QANet at
61615c4, TestEngine.parsing_inference and get_parsing_results): logits are upsampled and softmaxed at crop resolution,
every person's C probability maps are pasted to the whole image by grid_sample, a loop over the classes takes the sums,
and the scores are fused. Time and memory grow with N x C x H x W of the image, whatever the persons' size. Cropping is
the core's, and duplicates are not looked for: both are in the baseline's favour.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from qanet.bundle import Bundle
from qanet.errors import QanetError
from qanet.geometry import crop_people
from qanet.quality import PIXEL_SCORE_THRESHOLD, UPSAMPLE, PixelScores, check_arguments, clamp_iou, fuse_quality

_WEIGHTS = "model.safetensors"
_EPSILON = 1e-6

Parsed = tuple[PixelScores, NDArray[np.float32]]
Parse = Callable[[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]], Parsed]


def open_baseline(bundle: Bundle, threads: int | None = None) -> Parse:
    """Load the network of a bundle.

    Args:
        threads: of PyTorch, for the whole process; None leaves the choice to it.
    Returns:
        A function of image (H, W, 3) uint8 BGR, boxes (N, 4) xyxy pixels and box scores (N,) that gives labels with
        pixel scores, and the fused quality (N,).
    Raises:
        QanetError: the bundle lacks its weights, or they are broken.
    """
    from qanet.train.weights import load_weights

    if _WEIGHTS not in bundle.manifest["files"]:
        raise QanetError(
            f"{bundle.path} holds no weights to run in PyTorch",
            expected=_WEIGHTS,
            got="only graphs",
            next_command="qanet export CHECKPOINT --output NAME.qanet",
        )
    bundle.read(_WEIGHTS)  # checks the hash
    network, _ = load_weights(bundle.path / _WEIGHTS)
    network.eval()
    if threads:
        torch.set_num_threads(threads)

    def parse(image: NDArray[np.uint8], boxes: NDArray[np.float32], box_scores: NDArray[np.float32]) -> Parsed:
        grown = bundle.crop_boxes(boxes, image.shape[:2])
        crops = torch.from_numpy(crop_people(image, grown, bundle.input_hw))
        with torch.inference_mode():
            logits, predicted_iou = _forward(network, crops)
        scored = pixel_score(logits.numpy(), grown, (image.shape[0], image.shape[1]), bundle.threshold)
        iou = clamp_iou(predicted_iou.numpy().reshape(-1))
        box = np.clip(box_scores, 0, 1)
        return scored, fuse_quality(box, iou, scored.pixel_scores, bundle.qam_weights)

    return parse


def _forward(network: Any, crops: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, H, W, 3) uint8 -> logits (N, C, H/4, W/4) and IoU (N,), FP32."""
    logits, predicted_iou = network(network.normalise(crops))
    return logits, predicted_iou


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
