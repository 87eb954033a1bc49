"""The whole network: backbone, panoptic FPN, parsing head, IoU head; built from a recipe."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from qanet.errors import QanetError
from qanet.train.networks.backbone import Backbone
from qanet.train.networks.fpn import FPN
from qanet.train.networks.heads import IouHead, ParsingHead
from qanet.train.networks.hrnet import WIDTHS, HRNet
from qanet.train.networks.lite import VARIANTS as LITE_VARIANTS
from qanet.train.networks.lite import Lite
from qanet.train.networks.mask_head import is_mask_task, with_mask_head
from qanet.train.networks.pfpn import PanopticFPN
from qanet.train.networks.resnet import VARIANTS as RESNET_VARIANTS
from qanet.train.networks.resnet import ResNet
from qanet.train.recipe import Recipe

BACKBONES: dict[str, Callable[[], Backbone]] = {
    **{name: partial(Lite, name) for name in LITE_VARIANTS},
    **{name: partial(ResNet, name) for name in RESNET_VARIANTS},
    **{name: partial(HRNet, name) for name in WIDTHS},
}


class Network(nn.Module):
    """What the networks of all tasks have in common: the recipe's backbone, and its normalisation."""

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
        """uint8 BGR crops (N, H, W, 3), the runtime's layout -> normalised RGB float32 (N, 3, H, W)."""
        x = crops.float().permute(0, 3, 1, 2).flip(1)  # cast first: TensorRT transposes no UINT8
        return (x - self.mean) * self.inverse_std


class ParsingNetwork(Network):
    """Normalised RGB crops (N, 3, H, W) -> logits (N, C, H/4, W/4) and predicted IoU (N,)."""

    def __init__(self, recipe: Recipe):
        super().__init__(recipe)
        channels: Sequence[int] = self.backbone.out_channels
        self.fpn: FPN | None = FPN(channels, recipe.fpn_width) if recipe.fpn_width else None
        self.neck = PanopticFPN(self.fpn.out_channels if self.fpn else channels, recipe.width)
        self.parsing_head = ParsingHead(recipe.width, recipe.num_classes)
        self.iou_head = IouHead(recipe.width, recipe.iou_hidden)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.backbone(x)
        feature = self.neck(self.fpn(features) if self.fpn else features)
        return self.parsing_head(feature), self.iou_head(feature)


def build(recipe: Recipe) -> ParsingNetwork:
    """The network of a recipe, with random weights."""
    network = ParsingNetwork(recipe)
    return with_mask_head(network, recipe.width) if is_mask_task(recipe.labels) else network
