"""Parsing head and IoU head on the panoptic feature (method, sections Network and IoU head)."""

import torch
from torch import Tensor, nn


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
    """Predicts the mean IoU of a crop's parsing. No norm, no sigmoid: the output is unbounded and the user clamps."""

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
