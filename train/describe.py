"""The network of a recipe or checkpoint for `qanet inspect`: parameters and multiply-adds of each part."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qanet.errors import QanetError
from qanet.train.recipes import RECIPES, Recipe, nearest, recipe


def describe_network(source: str) -> dict[str, Any]:
    """Describe a recipe by name, a .safetensors checkpoint, the state of a run (.pt) or an official checkpoint (.pth).

    Returns:
        "recipe": its fields; "parts": {"total" or part: {"parameters", "multiply_adds"}} for one crop of its size;
        for a file also "checkpoint", for a state "epoch", and for an official checkpoint "fits": the recipes whose
        network has exactly its tensors.

    Raises:
        QanetError: no such recipe or file, a broken file, or an official checkpoint that fits no recipe.
    """
    path = Path(source)
    if source in RECIPES and not path.is_file():
        return _size(recipe(source))
    if not path.is_file():
        raise QanetError(
            f"no bundle, checkpoint or recipe {source!r}",
            expected="the name of one, or a file",
            got="nothing",
            next_command=f"qanet inspect {nearest(source)}",
        )
    from qanet.train.official import fitting_recipes, read_official
    from qanet.train.weights import load_state, load_weights

    if path.suffix not in (".pt", ".pth"):
        return {"checkpoint": source, **_size(load_weights(path)[1])}
    if path.suffix == ".pt":
        state = load_state(path)
        if not isinstance(state, dict) or "recipe" not in state:
            raise QanetError(f"{path} is not a run's state", expected="a last.pt of qanet train")
        return {"checkpoint": source, "epoch": state.get("epoch"), **_size(Recipe.from_json(state["recipe"]))}
    fitting = fitting_recipes(read_official(path))
    if not fitting:
        raise QanetError(f"{path} fits no recipe", expected=f"the tensors of one of {', '.join(RECIPES)}")
    return {"checkpoint": source, "fits": fitting, **_size(recipe(fitting[0]))}


def _size(chosen: Recipe) -> dict[str, Any]:
    parts = {name: dataclasses.asdict(size) for name, size in network_size(chosen).items()}
    return {"recipe": chosen.to_document(), "parts": parts}


@dataclass(frozen=True)
class Size:
    """The size of a network or of a part of it.

    Attributes:
        parameters: trainable values, batch norm included; running statistics are not counted.
        multiply_adds: of convolutions and linear layers for one crop; biases, norms and sums are not counted.
    """

    parameters: int
    multiply_adds: int


def network_size(recipe: Recipe, input_hw: tuple[int, int] | None = None) -> dict[str, Size]:
    """Parameters and multiply-adds of a recipe's network (method, section Network: Size).

    One forward pass on meta tensors, which have shapes and no data, under PyTorch's counter of operations.

    Args:
        input_hw: crop size (H, W) pixels; None: the recipe's.

    Returns:
        "total", then each part of the network by name.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from qanet.train.networks import build

    with torch.device("meta"):
        network = build(recipe).eval()
        crop = torch.empty(1, 3, *(input_hw or recipe.input_hw))
    counter = FlopCounterMode(display=False, depth=2)
    with counter, torch.inference_mode():
        network(crop)
    counts = {name.rpartition(".")[2]: sum(by_operator.values()) for name, by_operator in counter.flop_counts.items()}
    parts = {"total": Size(sum(p.numel() for p in network.parameters()), counter.get_total_flops() // 2)}
    for name, part in network.named_children():  # the counter counts a multiplication and an addition as two
        parts[name] = Size(sum(p.numel() for p in part.parameters()), counts.get(name, 0) // 2)
    return parts
