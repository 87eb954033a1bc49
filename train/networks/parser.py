"""The parsing network: backbone, FPN, panoptic FPN, parsing or mask head, IoU head (method, section Network)."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qanet.errors import QanetError
from qanet.labels import PERSON1
from qanet.train.networks.blocks import Backbone
from qanet.train.networks.hrnet import WIDTHS, HRNet
from qanet.train.networks.lite import VARIANTS as LITE_VARIANTS
from qanet.train.networks.lite import Lite
from qanet.train.networks.resnet import VARIANTS as RESNET_VARIANTS
from qanet.train.networks.resnet import ResNet
from qanet.train.recipes import Recipe


def _conv_bn(in_channels: int, width: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(in_channels, width, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(width))


class FPN(nn.Module):
    """Feature pyramid: four maps at strides 4, 8, 16, 32 -> four of `width` channels and the same sizes.

    1x1 laterals, a sum from the top down, 3x3 outputs; batch norm, no activation.
    """

    def __init__(self, in_channels: Sequence[int], width: int):
        super().__init__()
        self.laterals = nn.ModuleList(_conv_bn(channels, width, 1) for channels in in_channels)  # level 0 is stride 4
        self.outputs = nn.ModuleList(_conv_bn(width, width, 3) for _ in in_channels)
        self.out_channels = (width,) * len(in_channels)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        pyramid = [lateral(feature) for lateral, feature in zip(self.laterals, features)]
        for level in range(len(pyramid) - 2, -1, -1):  # from the top down
            pyramid[level] = pyramid[level] + F.interpolate(pyramid[level + 1], scale_factor=2.0, mode="nearest")
        return [output(level) for output, level in zip(self.outputs, pyramid)]


class _Step(nn.Module):
    """3x3 convolution, batch norm, ReLU, and bilinear upsampling x2 unless the level is at stride 4."""

    def __init__(self, in_channels: int, width: int, upsample: bool):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.upsample = upsample

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.conv(x)))
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False) if self.upsample else x


class PanopticFPN(nn.Module):
    """Four levels at strides 4, 8, 16, 32 -> one feature (N, width, H/4, W/4): all brought to stride 4 and summed.

    The levels at strides 32, 16, 8 get 3, 2, 1 steps of convolution and upsampling, that at stride 4 one convolution.
    For HRNet, as for the edge family, the backbone feeds it directly, without an FPN.
    """

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


class ParsingHead(nn.Module):
    """1x1 convolution to C class logits at stride 4."""

    def __init__(self, width: int, num_classes: int):
        super().__init__()
        self.classify = nn.Conv2d(width, num_classes, 1)
        nn.init.normal_(self.classify.weight, std=0.01)
        _zero_bias(self.classify)

    def forward(self, feature: Tensor) -> Tensor:
        """(N, width, h, w) -> (N, C, h, w) logits."""
        return self.classify(feature)


class IouHead(nn.Module):
    """Predicts the mean IoU of a crop's parsing. Without a sigmoid the output is unbounded; the caller clamps it."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.reduce = nn.Conv2d(width, width, 1)
        self.fc1 = nn.Conv2d(width, hidden, 1)
        self.fc2 = nn.Conv2d(hidden, hidden, 1)
        self.iou = nn.Linear(hidden, 1)
        for conv in (self.reduce, self.fc1, self.fc2):
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
            _zero_bias(conv)
        nn.init.kaiming_uniform_(self.iou.weight, a=1)
        _zero_bias(self.iou)

    def forward(self, feature: Tensor) -> Tensor:
        """(N, width, h, w) -> (N,) predicted IoU."""
        x = torch.relu(self.reduce(feature)).mean((2, 3), keepdim=True)  # (N, width, 1, 1)
        x = torch.relu(self.fc2(torch.relu(self.fc1(x))))
        return self.iou(x.flatten(1)).squeeze(1)


def _zero_bias(layer: nn.Conv2d | nn.Linear) -> None:
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)


class MaskHead(nn.Module):
    """1x1 convolution to one foreground logit at stride 4: the parsing head of the mask task.

    Source: method, Other tasks; the official mask head has a sigmoid per class. One channel is enough: the softmax of
    two logits is the sigmoid of their difference. The pixel score of a mask counts the foreground probability alone,
    that of a parsing also the confidence of the background.
    """

    def __init__(self, width: int):
        super().__init__()
        self.mask = nn.Conv2d(width, 1, 1)
        nn.init.normal_(self.mask.weight, std=0.01)
        assert self.mask.bias is not None
        nn.init.zeros_(self.mask.bias)

    def forward(self, feature: Tensor) -> Tensor:
        """(N, width, h, w) -> (N, 1, h, w) logits; the sigmoid of the upsampled logits is the probability."""
        return self.mask(feature)


def is_mask_task(labels: str) -> bool:
    """Whether a recipe with that label set learns instance masks."""
    return labels == PERSON1.name


BACKBONES: dict[str, Callable[[], Backbone]] = {
    **{name: partial(Lite, name) for name in LITE_VARIANTS},
    **{name: partial(ResNet, name) for name in RESNET_VARIANTS},
    **{name: partial(HRNet, name) for name in WIDTHS},
}


class Network(nn.Module):
    """Base of the networks of all tasks: the backbone and the normalisation of a recipe."""

    mean: Tensor
    inverse_std: Tensor

    def __init__(self, recipe: Recipe):
        super().__init__()
        if recipe.backbone not in BACKBONES:
            raise QanetError("unknown backbone", expected=f"one of {', '.join(BACKBONES)}", got=recipe.backbone)
        self.backbone = BACKBONES[recipe.backbone]()
        scale = torch.tensor(recipe.std_rgb) * 255
        self.register_buffer("mean", (torch.tensor(recipe.mean_rgb) * 255).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("inverse_std", (1 / scale).view(1, 3, 1, 1), persistent=False)

    def normalise(self, crops: Tensor) -> Tensor:
        """uint8 BGR crops (N, H, W, 3), as the runtime passes them -> normalised RGB float32 (N, 3, H, W)."""
        x = crops.float().permute(0, 3, 1, 2).flip(1)  # cast first: TensorRT cannot transpose UINT8
        return (x - self.mean) * self.inverse_std


class ParsingNetwork(Network):
    """Normalised RGB crops (N, 3, H, W) -> logits (N, C, H/4, W/4) and predicted IoU (N,)."""

    def __init__(self, recipe: Recipe):
        super().__init__(recipe)
        channels: Sequence[int] = self.backbone.out_channels
        self.fpn: FPN | None = FPN(channels, recipe.fpn_width) if recipe.fpn_width else None
        self.neck = PanopticFPN(self.fpn.out_channels if self.fpn else channels, recipe.width)
        self.parsing_head: Any = ParsingHead(recipe.width, recipe.num_classes)
        self.iou_head = IouHead(recipe.width, recipe.iou_hidden)
        if is_mask_task(
            recipe.labels
        ):  # built last, so that the random start of the other parts is the same for all tasks
            self.parsing_head = MaskHead(recipe.width)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.backbone(x)
        feature = self.neck(self.fpn(features) if self.fpn else features)
        return self.parsing_head(feature), self.iou_head(feature)
