"""A network of each ResNet and HRNet family with as few layers as it can have: an export takes seconds, not minutes."""

from functools import partial

import torch
from torch import nn

from qanet.train.networks import build, hrnet, resnet
from qanet.train.networks.blocks import BasicBlock, Bottleneck
from qanet.train.networks.parser import BACKBONES
from qanet.train.recipes import Recipe

_RESNETS = {
    "tiny-basic": resnet._Variant(BasicBlock, (1, 1, 1, 1), resnet._STEM),
    "tiny-c": resnet._Variant(Bottleneck, (1, 1, 1, 1), resnet._DEEP_STEM),
    "tiny-d": resnet._Variant(Bottleneck, (1, 1, 1, 1), resnet._DEEP_STEM, average_shortcut=True),
}
FAMILIES = {"tiny-basic": 0, "tiny-c": 16, "tiny-d": 16, "tiny-hrnet": 0}  # backbone -> FPN width


def register(patch):
    """Make the tiny backbones known for as long as the patch lasts."""
    for name, variant in _RESNETS.items():
        patch.setitem(resnet.VARIANTS, name, variant)
        patch.setitem(BACKBONES, name, partial(resnet.ResNet, name))
    patch.setitem(hrnet.WIDTHS, "tiny-hrnet", 4)
    patch.setattr(hrnet, "_BLOCKS", 1)
    patch.setattr(hrnet, "_MODULES", {2: 1, 3: 1, 4: 1})
    patch.setitem(BACKBONES, "tiny-hrnet", partial(hrnet.HRNet, "tiny-hrnet"))


def tiny_recipe(backbone, name="tiny"):
    """13 classes, crops of 64x96, ImageNet's mean and deviation."""
    return Recipe(
        name,
        "ccp13",
        "ccp",
        (64, 96),
        backbone=backbone,
        fpn_width=FAMILIES[backbone],
        width=16,
        iou_hidden=16,
        mean_rgb=(0.485, 0.456, 0.406),
        std_rgb=(0.229, 0.224, 0.225),
        pretrained=False,
    )


def lively_network(recipe):
    """The network of a recipe in eval mode, with batch norms that do something and logits that differ."""
    torch.manual_seed(0)
    network = build(recipe)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        elif isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
            nn.init.normal_(module.bias, std=0.1)  # the exporter drops a bias of zeros
    nn.init.normal_(network.parsing_head.classify.weight, std=0.5)
    return network.eval()
