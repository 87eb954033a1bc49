"""The whole network: backbone, panoptic FPN, parsing head, IoU head; built from a recipe."""

import torch
from torch import Tensor, nn

from qanet.errors import QanetError
from qanet.train.networks.heads import IouHead, ParsingHead
from qanet.train.networks.lite import Lite
from qanet.train.networks.pfpn import PanopticFPN
from qanet.train.recipes import Recipe

BACKBONES = {"lite0": Lite}


class ParsingNetwork(nn.Module):
    """Normalised RGB crops (N, 3, H, W) -> logits (N, C, H/4, W/4) and predicted IoU (N,)."""

    mean: Tensor
    inverse_std: Tensor

    def __init__(self, recipe: Recipe):
        super().__init__()
        if recipe.backbone not in BACKBONES:
            raise QanetError("unknown backbone", expected=f"one of {', '.join(BACKBONES)}", got=recipe.backbone)
        self.backbone = BACKBONES[recipe.backbone]()
        self.neck = PanopticFPN(self.backbone.out_channels, recipe.width)
        self.parsing_head = ParsingHead(recipe.width, recipe.num_classes)
        self.iou_head = IouHead(recipe.width, recipe.iou_hidden)
        scale = torch.tensor(recipe.std_rgb) * 255
        self.register_buffer("mean", (torch.tensor(recipe.mean_rgb) * 255).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("inverse_std", (1 / scale).view(1, 3, 1, 1), persistent=False)

    def normalise(self, crops: Tensor) -> Tensor:
        """uint8 BGR crops (N, H, W, 3), the runtime's layout -> normalised RGB float32 (N, 3, H, W)."""
        x = crops.float().permute(0, 3, 1, 2).flip(1)  # cast first: TensorRT transposes no UINT8
        return (x - self.mean) * self.inverse_std

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        feature = self.neck(self.backbone(x))
        return self.parsing_head(feature), self.iou_head(feature)


def build(recipe: Recipe) -> ParsingNetwork:
    """The network of a recipe, with random weights."""
    return ParsingNetwork(recipe)
