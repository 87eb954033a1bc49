"""A quick look during training: argmax at crop resolution on ground-truth boxes. `qanet val` is the real metric."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from qanet.datasets import DataSet
from qanet.drawing import blend_labels
from qanet.files import write_bytes
from qanet.geometry import box_to_image, crop_boxes, resample, resample_labels
from qanet.labels import IGNORE
from qanet.train.distributed import World
from qanet.train.losses import two_class_logits
from qanet.train.networks.parser import ParsingNetwork
from qanet.train.recipes import Recipe


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


LOG_FIELDS = (
    "epoch",
    "loss",
    "ce",
    "lovasz",
    "iou",
    "learning_rate",
    "val_miou",
    "val_pixel_accuracy",
    "seconds",
    "data_wait_share",
)
_PICTURED = 6  # people
_GAP_PX = 8


def append_log(path: Path, row: dict[str, float], fields: Sequence[str] = LOG_FIELDS) -> None:
    """Add a line to log.csv with these columns, empty where the row has none."""
    fresh = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, fields)
        if fresh:
            writer.writeheader()
        writer.writerow({key: float(f"{value:.6g}") for key, value in row.items()})


def write_pictures(path: Path, model: ParsingNetwork, data: DataSet, recipe: Recipe, device: torch.device) -> None:
    """A JPEG of the first people of a data set: photograph, truth (void in white), prediction, one column a person."""
    import cv2

    columns = [_picture(model, data, index, recipe, device) for index in range(min(_PICTURED, len(data)))]
    sheet = np.full((columns[0].shape[0], sum(c.shape[1] + _GAP_PX for c in columns), 3), 255, np.uint8)
    x = 0
    for column in columns:
        sheet[:, x : x + column.shape[1]] = column
        x += column.shape[1] + _GAP_PX
    written, data_bytes = cv2.imencode(".jpg", sheet[:, :-_GAP_PX])
    assert written
    write_bytes(path, data_bytes.tobytes())


def _picture(
    model: ParsingNetwork, data: DataSet, index: int, recipe: Recipe, device: torch.device
) -> NDArray[np.uint8]:
    sample = data[index]
    affine = box_to_image(crop_boxes(sample.box, recipe.input_hw)[0], recipe.input_hw)
    crop = resample(sample.image, affine, recipe.input_hw)
    truth = resample_labels(sample.labels, affine, recipe.input_hw)
    with torch.inference_mode():
        logits, _ = model.eval()(model.normalise(torch.from_numpy(crop)[None].to(device)))
        full = F.interpolate(two_class_logits(logits.float()), size=recipe.input_hw, mode="bilinear")
        guess = full[0].argmax(0)
    shown = [crop, crop.copy(), crop.copy()]
    known = np.where(truth == IGNORE, 0, truth).astype(np.uint8)
    blend_labels(shown[1], known, data.label_set, 0.7)
    shown[1][truth == IGNORE] = 255
    blend_labels(shown[2], guess.cpu().numpy().astype(np.uint8), data.label_set, 0.7)
    return np.concatenate(shown)
