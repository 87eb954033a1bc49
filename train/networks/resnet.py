"""ResNet-50c and ResNet-101d, the method's own backbones, and ResNet-18 of the edge family.

Source: method, section Network; ResNet (arXiv 1512.03385), its c and d variants (arXiv 1812.01187). The stride of a
bottleneck is on its 3x3 convolution. No package registry holds ImageNet weights of them.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from qanet.train.networks.blocks import Backbone, BasicBlock, Bottleneck, Stem, initialise, residual_layer

_STEM = ((64, 7, 2),)
_DEEP_STEM = ((32, 3, 2), (32, 3, 1), (64, 3, 1))
_PLANES = (64, 128, 256, 512)


@dataclass(frozen=True)
class _Variant:
    block: type[BasicBlock] | type[Bottleneck]
    layers: tuple[int, int, int, int]  # blocks of each layer
    stem: tuple[tuple[int, int, int], ...]
    average_shortcut: bool = False


VARIANTS = {
    "r18": _Variant(BasicBlock, (2, 2, 2, 2), _STEM),
    "r50c": _Variant(Bottleneck, (3, 4, 6, 3), _DEEP_STEM),
    "r101d": _Variant(Bottleneck, (3, 4, 23, 3), _DEEP_STEM, average_shortcut=True),
}


class ResNet(Backbone):
    """A ResNet; stage 0 is the stem, stage k is layer k."""

    def __init__(self, variant: str) -> None:
        super().__init__()
        kind = VARIANTS[variant]
        self.stem = Stem(kind.stem)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        layers = []
        channels = kind.stem[-1][0]
        for index, (planes, repeats) in enumerate(zip(_PLANES, kind.layers)):
            stride = 1 if index == 0 else 2
            layers.append(residual_layer(kind.block, channels, planes, repeats, stride, kind.average_shortcut))
            channels = planes * kind.block.expansion
        self.layer1, self.layer2, self.layer3, self.layer4 = layers
        first, second, third, fourth = (planes * kind.block.expansion for planes in _PLANES)
        self.out_channels = (first, second, third, fourth)
        initialise(self.modules())

    def stages(self) -> list[nn.Module]:
        return [self.stem, self.layer1, self.layer2, self.layer3, self.layer4]

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.maxpool(self.stem(x))
        features = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            features.append(x)
        return features
