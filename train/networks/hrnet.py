"""HRNet: parallel branches at strides 4, 8, 16 and 32 that exchange features after every group of blocks.

Source: HRNet (arXiv 1908.07919); method, section Network: W48 has 48, 96, 192 and 384 channels; W32 and W18 likewise.
No package registry holds ImageNet weights of it.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from qanet.train.networks.blocks import (
    Backbone,
    BasicBlock,
    Bottleneck,
    Stem,
    conv1x1,
    conv3x3,
    initialise,
    residual_layer,
)

WIDTHS = {"w18": 18, "w32": 32, "w48": 48}  # channels at stride 4; they double with every halving of the size
_STEM = ((64, 3, 2), (64, 3, 2))
_BLOCKS = 4  # per branch, and in the first layer
_MODULES = {2: 1, 3: 4, 4: 3}  # branches of a stage -> its modules


def _rectified(conv: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(conv, nn.BatchNorm2d(conv.out_channels), nn.ReLU(inplace=True))


class Exchange(nn.Module):
    """Blocks on every branch; then each branch receives the sum of all, resized and projected to its own shape."""

    def __init__(self, widths: Sequence[int]):
        super().__init__()
        self.branches = nn.ModuleList(residual_layer(BasicBlock, width, width, _BLOCKS) for width in widths)
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(_bring(widths, source, target) for source in range(len(widths)))
            for target in range(len(widths))
        )

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """A map per branch, (N, widths[i], h / 2**i, w / 2**i), in and out."""
        features = [branch(x) for branch, x in zip(self.branches, features)]
        fused = []
        for target, row in enumerate(self.fuse_layers):
            assert isinstance(row, nn.ModuleList)
            total: Tensor | None = None
            for source, bring in enumerate(row):
                term = bring(features[source])
                if source > target:  # from a smaller map
                    term = F.interpolate(term, scale_factor=2.0 ** (source - target), mode="nearest")
                total = term if total is None else total + term
            assert total is not None
            fused.append(F.relu(total))
        return fused


def _bring(widths: Sequence[int], source: int, target: int) -> nn.Module:
    """Project `source` to the channels of `target`; strided convolutions halve a larger map, a smaller map is upsampled
    by the caller."""
    if source == target:
        return nn.Identity()
    if source > target:
        return nn.Sequential(conv1x1(widths[source], widths[target]), nn.BatchNorm2d(widths[target]))
    steps = [_rectified(conv3x3(widths[source], widths[source], 2)) for _ in range(target - source - 1)]
    last = nn.Sequential(conv3x3(widths[source], widths[target], 2), nn.BatchNorm2d(widths[target]))
    return nn.Sequential(*steps, last)


class HRNet(Backbone):
    """An HRNet; stage 0 is the stem, stage 1 the first layer, stage k = 2, 3, 4 has k branches."""

    def __init__(self, variant: str) -> None:
        super().__init__()
        width = WIDTHS[variant]
        widths = (width, 2 * width, 4 * width, 8 * width)
        self.stem = Stem(_STEM)
        self.layer1 = residual_layer(Bottleneck, 64, 64, _BLOCKS)
        channels = 64 * Bottleneck.expansion
        self.transition1 = nn.ModuleList(
            [_rectified(conv3x3(channels, widths[0])), nn.Sequential(_rectified(conv3x3(channels, widths[1], 2)))]
        )
        self.stage2 = _stage(widths[:2])
        self.transition2 = _new_branch(widths[:3])
        self.stage3 = _stage(widths[:3])
        self.transition3 = _new_branch(widths)
        self.stage4 = _stage(widths)
        self.out_channels = widths
        initialise(self.modules())

    def stages(self) -> list[nn.Module]:
        pairs = ((self.transition1, self.stage2), (self.transition2, self.stage3), (self.transition3, self.stage4))
        return [self.stem, self.layer1, *(nn.ModuleList(pair) for pair in pairs)]

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.layer1(self.stem(x))
        features = self.stage2([transition(x) for transition in self.transition1])
        for transition, stage in ((self.transition2, self.stage3), (self.transition3, self.stage4)):
            features = stage([*features, transition[-1](features[-1])])
        return features


def _stage(widths: Sequence[int]) -> nn.Sequential:
    return nn.Sequential(*(Exchange(widths) for _ in range(_MODULES[len(widths)])))


def _new_branch(widths: Sequence[int]) -> nn.ModuleList:
    """Identity for the existing branches, and a new branch of half the size of the smallest."""
    added = nn.Sequential(_rectified(conv3x3(widths[-2], widths[-1], 2)))
    return nn.ModuleList([*(nn.Identity() for _ in widths[:-1]), added])
