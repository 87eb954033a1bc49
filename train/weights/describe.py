"""What a recipe or a checkpoint is, for `qanet inspect`: its network, part by part, without running it."""

import dataclasses
from pathlib import Path
from typing import Any

from qanet.errors import QanetError
from qanet.train.recipe import Recipe
from qanet.train.recipes import RECIPES, nearest, recipe


def describe_network(source: str) -> dict[str, Any]:
    """Of a recipe's name, a .safetensors checkpoint, the state of a run (.pt) or an official checkpoint (.pth).

    Returns:
        "recipe": its fields; "parts": {"total" or part: {"parameters", "multiply_adds"}} for one crop of its size;
        for a file also "checkpoint", and for an official one "fits": the recipes whose network has its tensors.

    Raises:
        QanetError: no such recipe, a broken file, or an official one that fits no recipe.
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
    if path.suffix not in (".pt", ".pth"):
        from qanet.train.weights.checkpoint import load_weights

        return {"checkpoint": source, **_size(load_weights(path)[1])}
    if path.suffix == ".pt":
        from qanet.train.weights.checkpoint import load_state

        state = load_state(path)
        if not isinstance(state, dict) or "recipe" not in state:
            raise QanetError(f"{path} is not a run's state", expected="a last.pt of qanet train")
        return {"checkpoint": source, "epoch": state.get("epoch"), **_size(Recipe.from_json(state["recipe"]))}
    from qanet.train.weights.official import fitting_recipes, read_official

    fitting = fitting_recipes(read_official(path))
    if not fitting:
        raise QanetError(f"{path} fits no recipe", expected=f"the tensors of one of {', '.join(RECIPES)}")
    return {"checkpoint": source, "fits": fitting, **_size(recipe(fitting[0]))}


def _size(chosen: Recipe) -> dict[str, Any]:
    from qanet.train.networks.size import network_size

    parts = {name: dataclasses.asdict(size) for name, size in network_size(chosen).items()}
    return {"recipe": dataclasses.asdict(chosen), "parts": parts}
