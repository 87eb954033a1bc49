"""A quick look during training: argmax at crop resolution on ground-truth boxes. `qanet val` is the real metric."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from qanet.datasets import DataSet
from qanet.geometry import box_to_image, crop_boxes, resample, resample_labels
from qanet.labels import IGNORE
from qanet.train.loop.distributed import World
from qanet.train.loop.mask_losses import two_class_logits
from qanet.train.networks.parser import ParsingNetwork
from qanet.train.recipe import Recipe


@dataclass(frozen=True)
class CropScores:
    """Fractions, over all crop pixels that are not void."""

    miou: float
    pixel_accuracy: float
    iou: tuple[float, ...]  # per class


@torch.inference_mode()
def score_crops(
    model: ParsingNetwork, data: DataSet, recipe: Recipe, device: torch.device, world: World | None = None
) -> CropScores:
    """mIoU and pixel accuracy of the argmax on un-augmented crops; absent classes count 0 in mIoU.

    Several processes share the people between them, and each gets the scores of all.
    """
    world = world or World()
    model.eval()
    c = recipe.num_classes
    table = np.zeros((c, c), np.int64)
    for index in range(world.rank, len(data), world.size):
        sample = data[index]
        affine = box_to_image(crop_boxes(sample.box, recipe.input_hw)[0], recipe.input_hw)
        crop = torch.from_numpy(resample(sample.image, affine, recipe.input_hw))[None].to(device)
        truth = resample_labels(sample.labels, affine, recipe.input_hw)
        with torch.autocast(device.type, torch.bfloat16):
            logits, _ = model(model.normalise(crop).contiguous(memory_format=torch.channels_last))
        logits = two_class_logits(logits.float())
        full = F.interpolate(logits, size=recipe.input_hw, mode="bilinear", align_corners=False)
        guess = full[0].argmax(0).cpu().numpy()
        valid = truth != IGNORE
        table += np.bincount(truth[valid].astype(np.int64) * c + guess[valid], minlength=c * c).reshape(c, c)
    table = world.sum(torch.from_numpy(table).to(device)).cpu().numpy()
    hits = table.diagonal()
    iou = hits / np.maximum(table.sum(0) + table.sum(1) - hits, 1)
    return CropScores(float(iou.mean()), float(hits.sum() / max(table.sum(), 1)), tuple(iou.tolist()))
