"""Test-time augmentation in PyTorch: flip and box scales for a checkpoint, as the runtime has them for an engine.

Source: method, sections Pixel score and Losses and recipe (Test). The crops, the averaging of pasted probabilities
and of IoU scores, and the scores are the runtime's; here all of it stays on the network's device.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from qanet.geometry import CROP_SCALE, check_boxes, crop_boxes, crop_people
from qanet.quality import PIXEL_SCORE_THRESHOLD, UPSAMPLE, PixelScores, check_scales, region_of

_MAX_BATCH = 16  # crops a forward


class CropNetwork(Protocol):
    """What is asked of a network, `ParsingNetwork` for one."""

    def normalise(self, crops: Tensor) -> Tensor:
        """uint8 BGR crops (N, H, W, 3) -> what the network takes."""
        ...

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, C, H/4, W/4) and predicted IoU (N,)."""
        ...


@torch.inference_mode()
def parse_people(
    network: CropNetwork,
    image: NDArray[np.uint8],
    boxes: ArrayLike,
    input_hw: tuple[int, int],
    *,
    flip: bool = False,
    scales: Sequence[float] = (1.0,),
    flip_pairs: Sequence[tuple[int, int]] = (),
    threshold: float = PIXEL_SCORE_THRESHOLD,
    device: torch.device | str = "cpu",
) -> tuple[PixelScores, NDArray[np.float32]]:
    """The people of one image by the mean over all views.

    Args:
        network: in evaluation mode, on `device`.
        image: (H, W, 3) uint8 BGR.
        boxes: (N, 4) xyxy pixels of people, as detected.
        input_hw: the network's crop (H, W) pixels.
        flip: also at each crop's mirror image.
        scales: factors of the crop box.
        flip_pairs: classes that swap under a mirror.
        threshold: T of the pixel score.
    Returns:
        Labels and pixel scores at image resolution, and (N,) float32 mean IoU scores, as the head gives them. Part
        scores are (0, 0) where there is nobody: no class was seen.
    Raises:
        QanetError: boxes or scales that do not fit.
    """
    hw = (image.shape[0], image.shape[1])
    people = check_boxes(boxes, hw)
    factors = check_scales(scales)
    if not len(people):
        nobody = np.zeros(0, np.float32)
        return PixelScores(np.zeros((0, 4), np.int32), [], nobody, nobody.reshape(0, 0), hw), nobody
    views, iou = [], []
    for factor in factors:
        where = crop_boxes(people, input_hw, CROP_SCALE * factor)
        crops = torch.from_numpy(crop_people(image, where, input_hw)).to(device)
        for mirrored in (False, True)[: 1 + flip]:
            logits, predicted = _forward(network, crops.flip(2) if mirrored else crops)
            views.append((_unflip(logits, flip_pairs) if mirrored else logits, where))
            iou.append(predicted)
    scored = [_score_person([(m[i], where[i]) for m, where in views], hw, threshold) for i in range(len(people))]
    rois = np.array([roi for roi, _, _ in scored], np.int32)
    scores = np.array([row for _, _, row in scored], np.float32)  # (N, C)
    found = PixelScores(rois, [labels for _, labels, _ in scored], scores[:, 0], scores[:, 1:], hw)
    return found, torch.stack(iou).mean(0).cpu().numpy()


def _forward(network: CropNetwork, crops: Tensor) -> tuple[Tensor, Tensor]:
    """Float32 logits (N, C, h, w) and IoU scores (N,) of uint8 crops (N, H, W, 3)."""
    outputs = [network(network.normalise(part)) for part in crops.split(_MAX_BATCH)]
    logits, iou = (torch.cat(parts).float() for parts in zip(*outputs))
    return logits, iou


def _unflip(maps: Tensor, flip_pairs: Sequence[tuple[int, int]]) -> Tensor:
    order = torch.arange(maps.shape[1], device=maps.device)
    for left, right in flip_pairs:
        order[left], order[right] = right, left
    return maps[:, order].flip(3)


def _score_person(
    views: Sequence[tuple[Tensor, NDArray[np.float32]]], hw: tuple[int, int], threshold: float
) -> tuple[tuple[int, int, int, int], NDArray[np.uint8], NDArray[np.float32]]:
    """Region, labels and the C scores (class 0: the whole person) of one person from (C, h, w) logits and boxes."""
    reach = np.array([region_of(box, maps.shape[1:], hw) for maps, box in views])
    x0, y0, x1, y1 = (int(v) for v in (*reach[:, :2].min(0), *reach[:, 2:].max(0)))
    num_classes = len(views[0][0])
    if x1 <= x0 or y1 <= y0:
        return (x0, y0, x1, y1), np.zeros((y1 - y0, x1 - x0), np.uint8), np.zeros(num_classes, np.float32)
    total = torch.zeros((num_classes, y1 - y0, x1 - x0), device=views[0][0].device)
    for maps, box in views:
        total += paste_probabilities(maps, box, (x0, y0, x1, y1))
    confidence, winner = (total / len(views)).max(0)
    labels = torch.where(confidence >= 1 / num_classes, winner, 0).to(torch.uint8)
    certain = confidence >= threshold
    values, ids = confidence[certain].double(), winner[certain]
    sums = torch.zeros(num_classes, dtype=torch.float64, device=total.device).index_add_(0, ids, values)
    counts = torch.bincount(ids, minlength=num_classes)
    scores = sums / counts.clamp(min=1)
    scores[0] = sums.sum() / counts.sum().clamp(min=1)
    return (x0, y0, x1, y1), labels.cpu().numpy(), scores.float().cpu().numpy()


def paste_probabilities(maps: Tensor, box: NDArray[np.float32], roi: tuple[int, int, int, int]) -> Tensor:
    """(C, h, w) logits of a crop -> (C, r, c) probabilities over a window of the image, zero outside the crop."""
    full = F.interpolate(maps[None], scale_factor=UPSAMPLE, mode="bilinear", align_corners=False).softmax(1)
    axes = []
    for low, high, start, stop in ((roi[1], roi[3], box[1], box[3]), (roi[0], roi[2], box[0], box[2])):
        centres = torch.arange(low, high, dtype=torch.float64) + 0.5
        axes.append(((centres - float(start)) / (float(stop) - float(start)) * 2 - 1).float().to(maps.device))
    y, x = torch.meshgrid(*axes, indexing="ij")  # -1 .. 1 over the crop
    return F.grid_sample(full, torch.stack([x, y], 2)[None], padding_mode="zeros", align_corners=False)[0]
