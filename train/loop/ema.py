"""Exponential moving average of weights and batch-norm statistics: smoother weights for evaluation."""

import copy

import torch
from torch import nn

from qanet.train.networks.parser import ParsingNetwork


class Ema:
    """Holds the averaged copy in `model`; early on it averages over the steps so far, so that it never lags behind."""

    def __init__(self, model: ParsingNetwork, decay: float):
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.steps = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take one step towards the model's present state."""
        self.steps += 1
        decay = min(self.decay, self.steps / (self.steps + 10))
        for mine, theirs in zip(self.model.state_dict().values(), model.state_dict().values()):
            if mine.is_floating_point():
                mine.lerp_(theirs, 1 - decay)
            else:
                mine.copy_(theirs)
