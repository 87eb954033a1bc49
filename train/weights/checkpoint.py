"""Two files: `last.pt`, the whole state of a run to resume from, and `model.safetensors`, the weights to keep.

Neither is ever unpickled: last.pt is read with weights_only=True and safetensors holds no code. Both are
written aside and renamed, so that a full disk leaves the old file in place.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qanet.errors import QanetError
from qanet.files import write_by
from qanet.train.networks.build import build
from qanet.train.networks.parser import ParsingNetwork
from qanet.train.recipe import Recipe

_RECIPE_KEY = "qanet_recipe"


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a run's state (tensors, numbers, strings, containers of them)."""
    write_by(path, lambda aside: torch.save(state, aside))


def load_state(path: Path) -> dict[str, Any]:
    """Read a run's state; refuses anything but plain data."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a broken file
        raise QanetError(f"{path} is not a run's state", got=str(error).splitlines()[0]) from error


def save_weights(path: Path, model: nn.Module, recipe: Recipe, half: bool = True) -> None:
    """Write weights and recipe as safetensors; floats in FP16 by default: half the size, and fine-tuning starts the
    same."""
    from safetensors.torch import save_file

    tensors = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    tensors = {k: v.half() if half and v.is_floating_point() else v for k, v in tensors.items()}
    write_by(path, lambda aside: save_file(tensors, aside, {_RECIPE_KEY: recipe.to_json()}))


def load_weights(path: Path) -> tuple[ParsingNetwork, Recipe]:
    """The network (eval mode, FP32) and recipe of a .safetensors checkpoint.

    Raises:
        QanetError: not a safetensors file, or the first missing, extra or misshapen tensor by name.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise QanetError(f"no checkpoint at {path}", next_command="qanet train ccp13-lite0 --data DIR")
    try:
        with safe_open(str(path), "pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise QanetError(f"{path} is not a safetensors checkpoint", got=error) from error
    if _RECIPE_KEY not in metadata:
        raise QanetError(f"{path} names no recipe", expected=f"metadata {_RECIPE_KEY}", got=sorted(metadata))
    recipe = Recipe.from_json(metadata[_RECIPE_KEY])
    model = build(recipe)
    load_strictly(model, tensors, str(path))
    return model.eval(), recipe


def load_strictly(model: nn.Module, tensors: dict[str, Tensor], where: str, called: Callable[[str], str] = str) -> None:
    """Copy tensors into the model; QanetError names the first missing, extra or misshapen one.

    Args:
        where: the file, for the message.
        called: what a tensor of the model is called there, for the message.
    """
    own = model.state_dict()
    for key, value in own.items():
        if key not in tensors:
            raise QanetError(f"{where} lacks the tensor {called(key)}", expected=tuple(value.shape), got="missing")
        if tensors[key].shape != value.shape:
            got = tuple(tensors[key].shape)
            raise QanetError(f"{where}: tensor {called(key)} has the wrong shape", expected=tuple(value.shape), got=got)
    extra = sorted(set(tensors) - set(own))
    if extra:
        fact = f"{where} has a tensor the network does not: {called(extra[0])}"
        raise QanetError(fact, expected=f"{len(own)} tensors")
    model.load_state_dict(tensors)
