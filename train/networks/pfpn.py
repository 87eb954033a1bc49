"""Panoptic FPN, the straight form: every backbone level is brought to stride 4 and all are summed.

Source: method, section Network (PFPN): levels 1/32, 1/16, 1/8 get 3, 2, 1 times [3x3 conv, BN, ReLU, bilinear
x2] and 1/4 one conv; HRNet's variant feeds the backbone straight in, without an FPN, as the edge family does.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class _Step(nn.Module):
    """3x3 conv, BN, ReLU, and bilinear x2 unless the level is at stride 4 already."""

    def __init__(self, in_channels: int, width: int, upsample: bool):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.upsample = upsample

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.conv(x)))
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False) if self.upsample else x


class PanopticFPN(nn.Module):
    """Four levels at strides 4, 8, 16, 32 -> one feature (N, width, H/4, W/4)."""

    def __init__(self, in_channels: Sequence[int], width: int):
        super().__init__()
        self.levels = nn.ModuleList()
        for level, channels in enumerate(in_channels):  # level 0 is stride 4
            steps = max(level, 1)
            self.levels.append(
                nn.Sequential(*(_Step(channels if i == 0 else width, width, level > 0) for i in range(steps)))
            )

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        total = self.levels[0](features[0])
        for branch, feature in zip(list(self.levels)[1:], features[1:]):
            total = total + branch(feature)
        return total
