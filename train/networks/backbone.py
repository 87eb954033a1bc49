"""What every backbone offers: features at four strides, its stages in order, and its ImageNet weights if it has any."""

from torch import Tensor, nn

from qanet.errors import QanetError


class Backbone(nn.Module):
    """Normalised RGB (N, 3, H, W) -> features at strides 4, 8, 16 and 32, with `out_channels` channels."""

    out_channels: tuple[int, int, int, int]

    def stages(self) -> list[nn.Module]:
        """The backbone in order, in groups that one may freeze from the front; the first is the stem."""
        raise AssertionError("every backbone lists its stages")

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, 3, H, W) -> four maps (N, out_channels[i], H / 2**(i + 2), W / 2**(i + 2))."""
        raise AssertionError("every backbone has its own forward")

    def load_pretrained(self) -> None:
        """Fill every tensor with ImageNet weights.

        Raises:
            QanetError: no package of the registry holds weights of this backbone.
        """
        raise QanetError(
            f"no registry package holds ImageNet weights of {type(self).__name__}",
            next_command="train with pretrained=false",
        )
