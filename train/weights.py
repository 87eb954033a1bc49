"""Files of a run: `last.pt`, the state to resume from, and `model.safetensors`, the checkpoint with weights and recipe.

Reading them runs no code: last.pt is read with weights_only=True, and safetensors holds none. Both are written aside
and then renamed, so that a full disk leaves the old file in place.

As a program it writes the weighted mean of checkpoints of one network, which is often better than each of them:

    python -m qanet.train.weights street.safetensors:0.2 people.safetensors:0.8 --output both.safetensors

The checkpoints must be fine-tuned one from another; the mean of unrelated ones is worthless. The recipe is that of the
last one. Sources: model soups, arXiv 2203.05482; between a network and its fine-tuned self, arXiv 2109.01903.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qanet.commandline import CommandParser, note, run_module
from qanet.errors import QanetError
from qanet.files import write_by
from qanet.labels import LabelSet
from qanet.paths import check_outputs
from qanet.train.networks import build
from qanet.train.networks.parser import ParsingNetwork
from qanet.train.recipes import Recipe

_RECIPE_KEY = "qanet_recipe"
_CLASSIFIER = "parsing_head.classify."


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a run's state: tensors, numbers, strings and containers of them."""
    write_by(path, lambda aside: torch.save(state, aside))


def load_state(path: Path) -> dict[str, Any]:
    """Read a run's state onto the CPU; QanetError for a file that holds anything but plain data."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a broken file
        raise QanetError(f"{path} is not a run's state", got=str(error).splitlines()[0]) from error


def save_weights(path: Path, model: nn.Module, recipe: Recipe, half: bool = True) -> None:
    """Write weights and recipe as safetensors.

    Args:
        half: write floats in FP16: half the size, and fine-tuning starts equally well.
    """
    from safetensors.torch import save_file

    tensors = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    tensors = {k: v.half() if half and v.is_floating_point() else v for k, v in tensors.items()}
    write_by(path, lambda aside: save_file(tensors, aside, {_RECIPE_KEY: recipe.to_json()}))


def load_weights(path: Path, labels: LabelSet | None = None) -> tuple[ParsingNetwork, Recipe]:
    """The network (eval mode, FP32) and recipe of a .safetensors checkpoint.

    Args:
        labels: the classes, for a checkpoint that only names them.
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
        raise QanetError(f"{path} holds no recipe", expected=f"metadata {_RECIPE_KEY}", got=sorted(metadata))
    recipe = Recipe.from_json(metadata[_RECIPE_KEY])
    recipe = recipe.with_labels(labels) if labels else recipe
    model = build(recipe)
    load_strictly(model, tensors, str(path))
    return model.eval(), recipe


def load_strictly(model: nn.Module, tensors: dict[str, Tensor], where: str, called: Callable[[str], str] = str) -> None:
    """Copy tensors into the model; QanetError names the first missing, extra or misshapen one.

    Args:
        where: the file, for the message.
        called: the model's name of a tensor -> its name in the file, for the message.
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
        fact = f"{where} has a tensor that the network lacks: {called(extra[0])}"
        raise QanetError(fact, expected=f"{len(own)} tensors")
    model.load_state_dict(tensors)


def take_over(model: ParsingNetwork, checkpoint: Path, labels: LabelSet | None = None) -> list[str]:
    """Copy the tensors that fit from a .safetensors checkpoint, which may have other classes.

    Args:
        labels: the model's classes; the classifier's rows of those that the checkpoint has by the same name are copied.
    Returns:
        the names of the tensors that do not fit and keep their values, such as the classifier of another label set.
    Raises:
        QanetError: a broken checkpoint, or one with another backbone.
    """
    source, recipe = load_weights(checkpoint)
    theirs: Mapping[str, Tensor] = source.state_dict()
    own = model.state_dict()
    fitting = {k: v for k, v in theirs.items() if k in own and own[k].shape == v.shape}
    if not any(key.startswith("backbone.") for key in fitting):
        raise QanetError(f"{checkpoint} has another backbone", expected=type(model.backbone).__name__, got=recipe.name)
    model.load_state_dict({**own, **fitting})
    others = sorted(set(own) - set(fitting))
    shared = [name for name in labels.classes if name in recipe.label_set.classes] if labels else []
    for key in others:
        if key.startswith(_CLASSIFIER) and labels and len(own[key]) == labels.num_classes:
            rows = [labels.classes.index(name) for name in shared]
            own[key][rows] = theirs[key][[recipe.label_set.classes.index(name) for name in shared]]
    return others


def frozen_modules(model: ParsingNetwork, count: int) -> list[nn.Module]:
    """Freeze the first `count` stages of the backbone, stem first, and return them.

    Keep them in eval mode while training, so that their batch-norm statistics stay too.

    Raises:
        QanetError: more stages than the backbone has.
    """
    stages = model.backbone.stages()
    if not 0 <= count <= len(stages):
        raise QanetError("bad frozen_stages", expected=f"0..{len(stages)}", got=count)
    for stage in stages[:count]:
        stage.requires_grad_(False)
    return stages[:count]


def mean_weights(paths: Sequence[Path], shares: Sequence[float], output: Path) -> None:
    """Write the weighted mean of the tensors of checkpoints, batch-norm statistics included.

    Raises:
        QanetError: fewer than two checkpoints, a share that is not positive, or networks that differ.
    """
    if len(paths) < 2 or min(shares) <= 0:
        raise QanetError("bad checkpoints to average", expected="two or more, shares above 0", got=list(shares))
    check_outputs([output], read=paths)
    loaded = [load_weights(path) for path in paths]
    network, recipe = loaded[-1]
    states = [{key: value.clone() for key, value in other.state_dict().items()} for other, _ in loaded]
    for path, state in zip(paths, states):
        load_strictly(network, state, str(path))  # names the first tensor that differs
    mean: dict[str, Tensor] = dict(states[-1])
    for key, value in mean.items():
        if value.is_floating_point():
            mean[key] = torch.stack([state[key] * (w / sum(shares)) for state, w in zip(states, shares)]).sum(0)
    network.load_state_dict(mean)
    save_weights(output, network, recipe)


def _with_share(text: str) -> tuple[Path, float]:
    path, _, share = text.rpartition(":")
    try:
        return Path(path), float(share)
    except ValueError as error:
        raise QanetError(
            "bad checkpoint", expected="FILE.safetensors:SHARE, such as a.safetensors:0.3", got=text
        ) from error


def main(argv: Sequence[str]) -> int:
    """Entry point."""
    parser = CommandParser(
        prog="python -m qanet.train.weights", description="Write the weighted mean of checkpoints of one network."
    )
    parser.add_argument("checkpoints", nargs="+", metavar="FILE:SHARE")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE")
    args = parser.parse_args(argv)
    paths, shares = zip(*(_with_share(text) for text in args.checkpoints))
    mean_weights(paths, shares, args.output)
    note(f"wrote {args.output}, the mean of {len(paths)} checkpoints")
    return 0


if __name__ == "__main__":
    run_module(main)
