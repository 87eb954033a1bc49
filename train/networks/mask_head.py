"""Mask head: one logit a pixel for a crop's person, in place of the parsing head; the IoU head stays as it is.

Source: method, Other tasks; upstream's mask head has a sigmoid a class. One channel, not two under a softmax: the
softmax of two logits is the sigmoid of their difference, so a second channel could say nothing more, and the mask's
pixel score is of the foreground probability alone, where the parsing's counts the background's confidence as well.
"""

from typing import TypeVar

from torch import Tensor, nn

from qanet.labels import PERSON1

Network = TypeVar("Network", bound=nn.Module)


class MaskHead(nn.Module):
    """1x1 convolution to one foreground logit at stride 4."""

    def __init__(self, width: int):
        super().__init__()
        self.mask = nn.Conv2d(width, 1, 1)
        nn.init.normal_(self.mask.weight, std=0.01)
        assert self.mask.bias is not None
        nn.init.zeros_(self.mask.bias)

    def forward(self, feature: Tensor) -> Tensor:
        """(N, width, h, w) -> (N, 1, h, w) logits; the sigmoid of the upsampled logits is the probability."""
        return self.mask(feature)


def with_mask_head(network: Network, width: int) -> Network:
    """The network with a mask head on its panoptic feature of `width` channels, in place of its parsing head."""
    network.parsing_head = MaskHead(width)
    return network


def is_mask_task(labels: str) -> bool:
    """Whether a recipe of that label set learns instance masks."""
    return labels == PERSON1.name
