"""The base class of backbones, and the residual blocks that ResNet and HRNet share.

Layer names are those of the published weights.
"""

from collections.abc import Iterable, Sequence

from torch import Tensor, nn

from qanet.errors import QanetError


class Backbone(nn.Module):
    """A backbone: normalised RGB (N, 3, H, W) -> features at strides 4, 8, 16 and 32 with `out_channels` channels."""

    out_channels: tuple[int, int, int, int]

    def stages(self) -> list[nn.Module]:
        """The parts of the backbone in order, the stem first, which can be frozen from the front."""
        raise AssertionError("every backbone lists its stages")

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, 3, H, W) -> four maps (N, out_channels[i], H / 2**(i + 2), W / 2**(i + 2))."""
        raise AssertionError("every backbone has its own forward")

    def load_pretrained(self) -> None:
        """Load ImageNet weights into every tensor.

        Raises:
            QanetError: no package in a registry holds weights of this backbone.
        """
        raise QanetError(
            f"no registry package holds ImageNet weights of {type(self).__name__}",
            next_command="train with pretrained=false",
        )


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """3x3 convolution without a bias that keeps the size, or halves it with stride 2."""
    return nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)


def conv1x1(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """1x1 convolution without a bias."""
    return nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)


class Stem(nn.Module):
    """Convolutions, each with batch norm and ReLU: conv1, bn1, conv2, bn2, ..."""

    def __init__(self, steps: Sequence[tuple[int, int, int]]):
        """steps: (output channels, kernel, stride) of each convolution."""
        super().__init__()
        self.relu = nn.ReLU(inplace=True)
        self.depth = len(steps)
        channels = 3
        for number, (out_channels, kernel, stride) in enumerate(steps, 1):
            conv = nn.Conv2d(channels, out_channels, kernel, stride, kernel // 2, bias=False)
            self.add_module(f"conv{number}", conv)
            self.add_module(f"bn{number}", nn.BatchNorm2d(out_channels))
            channels = out_channels

    def forward(self, x: Tensor) -> Tensor:
        for number in range(1, self.depth + 1):
            conv, norm = self.get_submodule(f"conv{number}"), self.get_submodule(f"bn{number}")
            x = self.relu(norm(conv(x)))
        return x


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, added to the input; then ReLU."""

    expansion = 1

    def __init__(self, in_channels: int, planes: int, stride: int = 1, downsample: nn.Module | None = None):
        super().__init__()
        self.conv1, self.bn1 = conv3x3(in_channels, planes, stride), nn.BatchNorm2d(planes)
        self.conv2, self.bn2 = conv3x3(planes, planes), nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample if downsample is not None else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(out)) + self.downsample(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride) and 1x1 convolution to four times the planes, added to the input; then ReLU."""

    expansion = 4

    def __init__(self, in_channels: int, planes: int, stride: int = 1, downsample: nn.Module | None = None):
        super().__init__()
        self.conv1, self.bn1 = conv1x1(in_channels, planes), nn.BatchNorm2d(planes)
        self.conv2, self.bn2 = conv3x3(planes, planes, stride), nn.BatchNorm2d(planes)
        self.conv3, self.bn3 = conv1x1(planes, 4 * planes), nn.BatchNorm2d(4 * planes)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample if downsample is not None else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        return self.relu(self.bn3(self.conv3(out)) + self.downsample(x))


def residual_layer(
    block: type[BasicBlock] | type[Bottleneck],
    in_channels: int,
    planes: int,
    repeats: int,
    stride: int = 1,
    average_shortcut: bool = False,
) -> nn.Sequential:
    """`repeats` blocks. The first has the stride and, if shapes change, a projection as its shortcut.

    Args:
        average_shortcut: as in ResNet-d: the shortcut averages stride x stride pixels, then projects with stride 1.
    """
    out_channels = planes * block.expansion
    downsample: nn.Module | None = None
    if stride != 1 or in_channels != out_channels:
        parts: list[nn.Module] = [conv1x1(in_channels, out_channels, 1 if average_shortcut else stride)]
        if average_shortcut:
            parts.insert(0, nn.AvgPool2d(stride) if stride != 1 else nn.Identity())
        downsample = nn.Sequential(*parts, nn.BatchNorm2d(out_channels))
    first = block(in_channels, planes, stride, downsample)
    return nn.Sequential(first, *(block(out_channels, planes) for _ in range(repeats - 1)))


def initialise(modules: Iterable[nn.Module]) -> None:
    """Initialise convolutions Kaiming-normal over fan-out, and the last batch norm of each residual block with zero.

    So every block starts as the identity (method, section Network).
    """
    for module in modules:
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, Bottleneck):
            nn.init.zeros_(module.bn3.weight)
        elif isinstance(module, BasicBlock):
            nn.init.zeros_(module.bn2.weight)
