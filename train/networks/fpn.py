"""Feature pyramid (method, section Network): 1x1 laterals, a sum from the top down, 3x3 outputs; BN, no activation."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


def _conv_bn(in_channels: int, width: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(in_channels, width, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(width))


class FPN(nn.Module):
    """Four maps at strides 4, 8, 16, 32 -> four of `width` channels and the same sizes."""

    def __init__(self, in_channels: Sequence[int], width: int):
        super().__init__()
        self.laterals = nn.ModuleList(_conv_bn(channels, width, 1) for channels in in_channels)  # 0 is stride 4
        self.outputs = nn.ModuleList(_conv_bn(width, width, 3) for _ in in_channels)
        self.out_channels = (width,) * len(in_channels)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        pyramid = [lateral(feature) for lateral, feature in zip(self.laterals, features)]
        for level in range(len(pyramid) - 2, -1, -1):  # from the top down
            pyramid[level] = pyramid[level] + F.interpolate(pyramid[level + 1], scale_factor=2.0, mode="nearest")
        return [output(level) for output, level in zip(self.outputs, pyramid)]
