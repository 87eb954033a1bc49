"""Official QANet checkpoints: their tensor names against ours, and strict loading.

Source: method, section Official checkpoints. A file is a dict {model, optimizer, scheduler}, or the model's tensors
alone, with or without the prefix of data-parallel training. It is read with weights_only=True, so no code in it runs.
"""

import pickle
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from qanet.errors import QanetError
from qanet.train.networks import build
from qanet.train.networks.parser import ParsingNetwork
from qanet.train.recipes import RECIPES, Recipe
from qanet.train.weights import load_strictly

_PARALLEL = "module."


def _name_pairs() -> Iterator[tuple[str, str]]:
    """(official prefix, ours); the first that matches decides."""
    for layer in ("conv1", "bn1", "conv2", "bn2", "conv3", "bn3"):
        yield f"Conv_Body.{layer}.", f"backbone.stem.{layer}."
    yield "Conv_Body.", "backbone."
    yield "Conv_Body_FPN.fpn.p5_in.", "fpn.laterals.3."
    yield "Conv_Body_FPN.fpn.p5_out.", "fpn.outputs.3."
    for index in range(3):  # the official order is P4, P3, P2
        yield f"Conv_Body_FPN.fpn.fpn_in.{index}.", f"fpn.laterals.{2 - index}."
        yield f"Conv_Body_FPN.fpn.fpn_out.{index}.", f"fpn.outputs.{2 - index}."
    for level, steps in enumerate((1, 1, 2, 3)):  # level 0 is stride 4; the official scale1 is stride 32
        for step in range(steps):  # the official list has an upsampling layer between two steps
            for part, layer in enumerate(("conv", "bn")):
                theirs = f"Conv_Body_FPN.scale{4 - level}_block.{2 * step}.{part}."
                yield theirs, f"neck.levels.{level}.{step}.{layer}."
    yield "Parsing.Output.classify.", "parsing_head.classify."
    yield "Parsing.ParsingIoU.Head.conv1x1.0.", "iou_head.reduce."
    yield "Parsing.ParsingIoU.Head.conv_layers.0.0.", "iou_head.fc1."
    yield "Parsing.ParsingIoU.Head.conv_layers.1.0.", "iou_head.fc2."
    yield "Parsing.ParsingIoU.Output.parsing_iou.", "iou_head.iou."


NAME_PAIRS = tuple(_name_pairs())


def our_name(official: str) -> str:
    """`Conv_Body.layer1.0.conv1.weight` -> `backbone.layer1.0.conv1.weight`; other names pass unchanged."""
    for theirs, ours in NAME_PAIRS:
        if official.startswith(theirs):
            return ours + official.removeprefix(theirs)
    return official


def official_name(ours: str) -> str:
    """Inverse of `our_name`."""
    for theirs, mine in NAME_PAIRS:
        if ours.startswith(mine):
            return theirs + ours.removeprefix(mine)
    return ours


def read_official(path: Path) -> dict[str, Tensor]:
    """The tensors of the network in an official checkpoint, by official name without the data-parallel prefix.

    Raises:
        QanetError: no such file, not a checkpoint, or a file that holds more than plain data.
    """
    if not path.is_file():
        raise QanetError(f"no checkpoint at {path}", next_command="download it from the method's authors")
    # The scheduler of an official file holds its settings as a yacs node; it is read as an ordinary dict.
    settings = (OrderedDict, "yacs.config.CfgNode")
    try:
        with torch.serialization.safe_globals([settings]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        lines = [line.strip() for line in str(error).splitlines() if "lobal" in line or "GLOBAL" in line]
        raise QanetError(
            f"{path} is refused: it is no PyTorch checkpoint of plain data; no code in it was run",
            expected="tensors, numbers, strings and containers of them",
            got=(lines or [str(error)])[-1][:200],
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        got = (str(error).splitlines() or [type(error).__name__])[0]
        raise QanetError(f"{path} is not a PyTorch checkpoint", got=got) from error
    if isinstance(content, dict) and "ema" in content:
        raise QanetError(f"{path} is the state of a run", next_command=f"export {path.with_name('model.safetensors')}")
    model = content.get("model", content) if isinstance(content, dict) else content
    if not isinstance(model, dict) or not model or not all(isinstance(v, Tensor) for v in model.values()):
        raise QanetError(
            f"{path} holds no model",
            expected="a dict of tensors, or {model, optimizer, scheduler}",
            got=_summary(model),
        )
    names = [str(name) for name in model]
    cut = len(_PARALLEL) if all(name.startswith(_PARALLEL) for name in names) else 0
    return {name[cut:]: tensor for name, tensor in zip(names, model.values())}


def load_official(path: Path, recipe: Recipe) -> ParsingNetwork:
    """The network of a recipe (eval mode, FP32) with the weights of an official checkpoint.

    Raises:
        QanetError: as `read_official`; or the first missing, extra or misshapen tensor, by its official name.
    """
    tensors = read_official(path)
    network = build(recipe)
    try:
        load_strictly(network, {our_name(k): v for k, v in tensors.items()}, str(path), official_name)
    except QanetError as error:
        fitting = fitting_recipes(tensors)
        hint = f"it fits --recipe {' or '.join(fitting)}" if fitting else None
        raise QanetError(error.fact, expected=error.expected, got=error.got, next_command=hint) from error
    return network.eval()


def fitting_recipes(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of the recipes whose network has exactly these tensors, which are given by official name."""
    shapes = {our_name(name): tuple(tensor.shape) for name, tensor in tensors.items()}
    classifier = shapes.get("parsing_head.classify.weight")
    known: dict[tuple[object, ...], bool] = {}
    fitting = []
    for name, recipe in RECIPES.items():
        if classifier != (recipe.num_classes, recipe.width, 1, 1):
            continue  # most recipes are ruled out here, without building a network
        key = (recipe.backbone, recipe.fpn_width, recipe.iou_hidden)
        if key not in known:
            with torch.device("meta"):  # shapes only
                own = build(recipe).state_dict()
            known[key] = {k: tuple(v.shape) for k, v in own.items()} == shapes
        if known[key]:
            fitting.append(name)
    return fitting


def _summary(value: object) -> str:
    if isinstance(value, dict):
        return f"a dict with {', '.join(str(k) for k in list(value)[:5]) or 'nothing'}"
    return type(value).__name__
