"""How large a network is: parameters, and the multiply-adds of one crop (method, section Network: Size)."""

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from qanet.train.networks.build import build
from qanet.train.recipe import Recipe


@dataclass(frozen=True)
class Size:
    """Of a network or of a part of it.

    Attributes:
        parameters: what training learns, batch norm included, running statistics not.
        multiply_adds: of the convolutions and linear layers for one crop; biases, norms and sums are not counted.
    """

    parameters: int
    multiply_adds: int


def network_size(recipe: Recipe, input_hw: tuple[int, int] | None = None) -> dict[str, Size]:
    """Count on shapes alone, without weights: torch dispatches every operation of one forward to its counter.

    Args:
        input_hw: crop size (H, W) pixels; None: the recipe's.

    Returns:
        "total", then each part of the network by its name.
    """
    with torch.device("meta"):
        network = build(recipe).eval()
        crop = torch.empty(1, 3, *(input_hw or recipe.input_hw))
    counter = FlopCounterMode(display=False, depth=2)
    with counter, torch.inference_mode():
        network(crop)
    counts = {name.rpartition(".")[2]: sum(by_operator.values()) for name, by_operator in counter.flop_counts.items()}
    parts = {"total": Size(_parameters(network), counter.get_total_flops() // 2)}
    for name, part in network.named_children():  # the counter counts a multiplication and an addition as two
        parts[name] = Size(_parameters(part), counts.get(name, 0) // 2)
    return parts


def _parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
