"""Validation during training: scores of argmax on ground-truth crops, and pictures of a few people.

It is quick and rough: it counts the pixels of crops. `qanet val` counts those of pictures, with all that lies around a
person, so its mIoU of the same weights is another number. `paste_probabilities` brings the logits of a crop to image
resolution, as the runtime does in NumPy.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from qanet.datasets import DataSet, Sample
from qanet.drawing import blend_labels
from qanet.files import write_bytes
from qanet.geometry import box_to_image, crop_boxes, resample, resample_labels
from qanet.labels import IGNORE
from qanet.metrics.measures import confusion, summarize
from qanet.quality import UPSAMPLE
from qanet.train.distributed import World
from qanet.train.losses import two_class_logits
from qanet.train.networks.parser import ParsingNetwork
from qanet.train.optimise import MixedPrecision
from qanet.train.recipes import Recipe

_PICTURED_PEOPLE = 6
_GAP_PX = 8


@torch.inference_mode()
def score_crops(
    model: ParsingNetwork,
    data: DataSet,
    recipe: Recipe,
    device: torch.device,
    world: World | None = None,
    precision: MixedPrecision | None = None,
) -> dict[str, float]:
    """mIoU and pixel accuracy of the argmax over all crop pixels that are not void; crops are not augmented.

    Several processes share the people between them, and each returns the scores of all.

    Returns:
        {"val_crop_miou", "val_crop_pixel_accuracy"} in 0..1; a class that never occurs counts 0 in the mIoU.
    """
    world, precision = world or World(), precision or MixedPrecision("off", device.type)
    model.eval()
    c = recipe.num_classes
    table = np.zeros((c, c), np.int64)  # rows: truth, columns: prediction
    for index in range(world.rank, len(data), world.size):
        crop, truth = _plain_crop(data[index], recipe)
        pixels = torch.from_numpy(crop)[None].to(device)
        with precision.autocast():
            logits, _ = model(model.normalise(pixels).contiguous(memory_format=torch.channels_last))
        table += confusion(truth, _labels(logits, recipe).astype(np.uint8), c)
    table = world.sum(torch.from_numpy(table).to(device)).cpu().numpy()
    found = summarize(table, absent_is_zero=True)  # as `qanet val` does by default
    return {f"val_crop_{name}": float(found[name]) for name in ("miou", "pixel_accuracy")}


def write_pictures(path: Path, model: ParsingNetwork, data: DataSet, recipe: Recipe, device: torch.device) -> None:
    """Write a JPEG of the first people of a data set, one column per person: photograph, truth, prediction.

    Void pixels of the truth are white.
    """
    import cv2

    people = range(min(_PICTURED_PEOPLE, len(data)))
    columns = [_picture(model, data[index], data, recipe, device) for index in people]
    sheet = np.full((columns[0].shape[0], sum(c.shape[1] + _GAP_PX for c in columns), 3), 255, np.uint8)
    x = 0
    for column in columns:
        sheet[:, x : x + column.shape[1]] = column
        x += column.shape[1] + _GAP_PX
    written, data_bytes = cv2.imencode(".jpg", sheet[:, :-_GAP_PX])
    assert written
    write_bytes(path, data_bytes.tobytes())


def _picture(
    model: ParsingNetwork, sample: Sample, data: DataSet, recipe: Recipe, device: torch.device
) -> NDArray[np.uint8]:
    """(3 H, W, 3) BGR: a person's crop, its truth and the prediction, one below the other."""
    crop, truth = _plain_crop(sample, recipe)
    with torch.inference_mode():
        logits, _ = model.eval()(model.normalise(torch.from_numpy(crop)[None].to(device)))
        guess = _labels(logits, recipe)
    shown = [crop, crop.copy(), crop.copy()]
    known = np.where(truth == IGNORE, 0, truth).astype(np.uint8)
    blend_labels(shown[1], known, data.label_set, 0.7)
    shown[1][truth == IGNORE] = 255
    blend_labels(shown[2], guess.astype(np.uint8), data.label_set, 0.7)
    return np.concatenate(shown)


def _plain_crop(sample: Sample, recipe: Recipe) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A person's crop (H, W, 3) BGR and its labels (H, W), without augmentation."""
    affine = box_to_image(crop_boxes(sample.box, recipe.input_hw)[0], recipe.input_hw)
    return resample(sample.image, affine, recipe.input_hw), resample_labels(sample.labels, affine, recipe.input_hw)


def _labels(logits: Tensor, recipe: Recipe) -> NDArray[np.int64]:
    """(H, W) classes at crop resolution, of the logits (1, C, H/4, W/4) of one crop."""
    full = F.interpolate(two_class_logits(logits.float()), size=recipe.input_hw, mode="bilinear", align_corners=False)
    return full[0].argmax(0).cpu().numpy()


def paste_probabilities(maps: Tensor, box: NDArray[np.float32], roi: tuple[int, int, int, int]) -> Tensor:
    """Class probabilities of a crop over a window of its image, zero outside the crop.

    Args:
        maps: (C, h, w) logits of the crop.
        box: (4,) xyxy of the crop in image pixels.
        roi: xyxy of the window in image pixels.
    Returns:
        (C, roi height, roi width).
    """
    full = F.interpolate(maps[None], scale_factor=UPSAMPLE, mode="bilinear", align_corners=False).softmax(1)
    axes = []
    for low, high, start, stop in ((roi[1], roi[3], box[1], box[3]), (roi[0], roi[2], box[0], box[2])):
        centres = torch.arange(low, high, dtype=torch.float64) + 0.5
        axes.append(((centres - float(start)) / (float(stop) - float(start)) * 2 - 1).float().to(maps.device))
    y, x = torch.meshgrid(*axes, indexing="ij")  # -1 .. 1 over the crop
    return F.grid_sample(full, torch.stack([x, y], 2)[None], padding_mode="zeros", align_corners=False)[0]
