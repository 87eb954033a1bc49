"""The person detector: a Lite backbone, a light feature pyramid over strides 8, 16 and 32, and anchor-free heads.

Every cell of the pyramid predicts whether it lies in a person, the distances to the four sides of the person's box, and
the IoU of that box with the true one. The score is the product of the probability and the IoU, so it measures the
quality of the box as the method's parser measures that of its masks. Sources: FCOS (arXiv 1904.01355), the detector of
the paper; IoU-aware scores (arXiv 1912.05992) in place of its centerness. The pyramid has no output convolutions: the
heads begin with 3x3 convolutions of their own.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qanet.labels import PERSON_BOX1
from qanet.train.networks.lite import conv_bn
from qanet.train.networks.parser import Network
from qanet.train.recipes import Recipe

STRIDES = (8, 16, 32)
_PRIOR = 0.01  # initial probability of a person in every cell
_START = (0.8, 1.8, 0.8, 1.8)  # initial distances to the left, top, right and bottom side, in strides
_FARTHEST = 5.0  # log of the greatest distance in strides; 148 strides are more than any input has


class Raw(NamedTuple):
    """Output of the A cells: logits (N, A) of a person and of the box's IoU, boxes (N, A, 4) xyxy in network pixels."""

    logits: Tensor
    iou_logits: Tensor
    boxes: Tensor


class Pyramid(nn.Module):
    """Maps at strides 8, 16, 32 -> three of `width` channels: 1x1 laterals with batch norm, summed top down."""

    def __init__(self, in_channels: Sequence[int], width: int):
        super().__init__()
        self.laterals = nn.ModuleList(conv_bn(channels, width, 1, act=False) for channels in in_channels)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        levels = [lateral(feature) for lateral, feature in zip(self.laterals, features)]
        for k in range(len(levels) - 2, -1, -1):
            levels[k] = levels[k] + F.interpolate(levels[k + 1], scale_factor=2.0, mode="nearest")
        return levels


class Head(nn.Module):
    """Two 3x3 convolutions and a 1x1 to six numbers per cell. Each level has its own, so batch norm sees one scale."""

    def __init__(self, width: int):
        super().__init__()
        self.tower = nn.Sequential(conv_bn(width, width, 3), conv_bn(width, width, 3))
        self.predict = nn.Conv2d(width, 6, 1)
        nn.init.normal_(self.predict.weight, std=0.01)
        start = [math.log(_PRIOR / (1 - _PRIOR)), 0.0, *(math.log(d) for d in _START)]
        with torch.no_grad():
            assert self.predict.bias is not None
            self.predict.bias.copy_(torch.tensor(start))

    def forward(self, feature: Tensor) -> Tensor:
        """(N, width, h, w) -> (N, 6, h, w): person, IoU, log distances to the left, top, right and bottom."""
        return self.predict(self.tower(feature))


class DetectorNetwork(Network):
    """Normalised RGB images (N, 3, H, W) -> the output of all cells, level by level, row by row."""

    def __init__(self, recipe: Recipe):
        super().__init__(recipe)
        self.pyramid = Pyramid(self.backbone.out_channels[1:], recipe.width)
        self.heads = nn.ModuleList(Head(recipe.width) for _ in STRIDES)

    def forward(self, x: Tensor) -> Raw:
        levels = self.pyramid(self.backbone(x)[1:])
        maps = [head(level) for head, level in zip(self.heads, levels)]
        cells = torch.cat([m.flatten(2) for m in maps], 2).transpose(1, 2).float()  # (N, A, 6)
        return Raw(cells[..., 0], cells[..., 1], decode(cells[..., 2:], x.shape[2:]))


def decode(logs: Tensor, input_hw: Sequence[int]) -> Tensor:
    """Log distances (N, A, 4) in strides from each cell's centre -> boxes (N, A, 4) xyxy in network pixels."""
    centres, strides = cells_of(input_hw, logs.device)
    distances = logs.clamp(max=_FARTHEST).exp() * strides[:, None]
    return torch.cat([centres - distances[..., :2], centres + distances[..., 2:]], -1)


def cells_of(input_hw: Sequence[int], device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Centres (A, 2) x, y in pixels and strides (A,) of all cells of an input (H, W), in the order of the network."""
    centres, strides = [], []
    for stride in STRIDES:
        rows, columns = int(input_hw[0]) // stride, int(input_hw[1]) // stride
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        centres.append((torch.stack([x, y], -1).reshape(-1, 2).float() + 0.5) * stride)
        strides.append(torch.full((rows * columns,), float(stride)))
    return torch.cat(centres).to(device), torch.cat(strides).to(device)


def scores_of(raw: Raw) -> Tensor:
    """(N, A) scores in 0..1: the probability of a person times the predicted IoU."""
    return raw.logits.sigmoid() * raw.iou_logits.sigmoid()


def is_detection_task(labels: str) -> bool:
    """Whether a recipe with that label set learns to detect people."""
    return labels == PERSON_BOX1.name
