"""Recipes: the record of everything that decides what a training run produces, and all recipes by name.

RECIPES holds the official recipes of the method and modern ones for every backbone. A folder of `qanet new` holds one
of its own in `recipe.json`: another recipe's name and what differs from it. This file imports no torch.
"""

import dataclasses
import difflib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qanet.errors import QanetError
from qanet.labels import LABEL_SETS, LabelSet, label_set


@dataclass(frozen=True)
class Recipe:
    """A network, its data and its schedule. The defaults are the modern recipe of the edge family."""

    name: str
    labels: str  # name of the label set
    data_format: str  # layout of the data set: one of qanet.datasets.DATA_FORMATS, "coco" or "detection"
    input_hw: tuple[int, int]
    backbone: str = "lite0"
    pretrained: bool = True  # ImageNet weights from a registry package
    fpn_width: int = 0  # channels of the FPN between backbone and panoptic FPN; 0: no FPN, as for HRNet
    width: int = 96  # channels of the panoptic feature
    iou_hidden: int = 256  # channels of the IoU head's hidden layers
    mean_rgb: tuple[float, float, float] = (0.5, 0.5, 0.5)  # of images in 0..1
    std_rgb: tuple[float, float, float] = (0.5, 0.5, 0.5)

    epochs: int = 30
    batch_size: int = 16
    optimizer: str = "adamw"  # or "adam", as in the official recipes
    learning_rate: float = 2e-3
    backbone_lr_factor: float = 0.35
    frozen_stages: int = 0  # leading stages of the backbone (stem first) without gradient, in eval mode
    weight_decay: float = 0.02
    schedule: str = "cosine"  # to zero; "step": x0.1 at each milestone; "level": constant, then linear to zero
    milestones: tuple[float, float] = (90 / 140, 120 / 140)  # of schedule "step", as shares of all steps
    warmup_share: float = 0.05  # of all steps
    amp: str = "auto"  # autocast type: "bf16", "fp16" (with loss scaling), "off", or the faster on this machine
    sync_bn: bool = False  # share batch-norm statistics between processes (GPUs only)
    clip_norm: float = 5.0
    ema_decay: float = 0.995
    ce_weight: float = 1.0
    lovasz_weight: float = 1.0
    lovasz_from: float = 0.3  # share of the epochs before the Lovasz loss joins
    loss_stride: int = 1  # losses see every stride-th label per axis, at a random phase
    lovasz_stride: int = 2  # Lovasz sees every stride-th pixel per axis of those
    iou_weight: float = 1.0
    repeat_threshold: float = 0.4  # images with a class rarer than this share are drawn more often; 0: off

    scale_range: tuple[float, float] = (0.7, 1.3)
    scale_std: float = 0.2
    rotation_std_deg: float = 15.0
    rotation_probability: float = 0.5
    shift_std: float = 0.05  # as a share of the crop's size
    flip_probability: float = 0.5
    colour_jitter: float = 0.3
    aspect_std: float = 0.0  # standard deviation of log(width / height) of a random stretch
    bystander_probability: float = 0.0  # paste the person of another sample, labelled background
    cut_probability: float = 0.0  # cut the photograph, or the box, within the person
    scenery_probability: float = 0.0  # replace the background by another photograph
    cover_probability: float = 0.0  # paste an object in front of the person
    spoil_probability: float = 0.0  # degrade: exposure, white balance, resolution, blur, noise, JPEG
    epoch_people: int = 0  # people drawn per epoch; 0: the size of the data set
    seed: int = 0
    own_labels: LabelSet | None = None  # the label set itself where it is not built in

    @property
    def label_set(self) -> LabelSet:
        """The classes; QanetError where the recipe names a set of somebody else's that it does not hold."""
        return self.own_labels or label_set(self.labels)

    @property
    def num_classes(self) -> int:
        """Number of classes C, background included."""
        return self.label_set.num_classes

    def with_labels(self, labels: LabelSet) -> "Recipe":
        """The same recipe for other classes."""
        own = None if labels.name in LABEL_SETS else labels
        return dataclasses.replace(self, labels=labels.name, own_labels=own)

    def to_document(self) -> dict[str, Any]:
        """The fields as plain data."""
        fields = dataclasses.asdict(self)
        return {**fields, "own_labels": self.own_labels and self.own_labels.to_document()}

    def to_json(self) -> str:
        """One line of JSON, stored in every checkpoint."""
        return json.dumps(self.to_document(), sort_keys=True)

    @staticmethod
    def from_json(text: str) -> "Recipe":
        """Inverse of `to_json`."""
        fields: dict[str, Any] = json.loads(text)
        own = fields.pop("own_labels", None)
        return Recipe(**{k: _as_tuple(v) for k, v in fields.items()}, own_labels=own and LabelSet.of_document(own))

    def override(self, settings: Mapping[str, object]) -> "Recipe":
        """A copy with other settings; each value becomes the type of the key's default.

        Args:
            settings: key -> value; text is parsed ("128x96" for input_hw, "false" for pretrained). `labels` is the name
                of a built-in set, the file of another, or a LabelSet.
        Raises:
            QanetError: an unknown key, or a value that is not of the key's type.
        """
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(Recipe)}
        changes: dict[str, Any] = {}
        for key, value in settings.items():
            if key == "labels":
                chosen = value if isinstance(value, LabelSet) else label_set(str(value))
                changes |= {"labels": chosen.name, "own_labels": self.with_labels(chosen).own_labels}
                continue
            if key not in fields or key in ("name", "own_labels"):
                near = difflib.get_close_matches(key, fields, 1)
                hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(fields)}"
                raise QanetError(f"recipe {self.name} has no key {key!r}", next_command=hint)
            changes[key] = _converted(key, value, fields[key])
        return dataclasses.replace(self, **changes)


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _converted(key: str, value: object, default: Any) -> Any:
    """A setting in the type of its default."""
    try:
        if isinstance(value, str) and not isinstance(default, str):
            return _parsed(value, default)
        if isinstance(default, tuple) and isinstance(value, (tuple, list)) and len(value) == len(default):
            return tuple(_converted(key, part, known) for part, known in zip(value, default))
        if type(value) is type(default):
            return value
        if isinstance(default, float) and type(value) is int:
            return float(value)
        raise ValueError(value)
    except (ValueError, KeyError) as error:
        raise QanetError(f"bad value for {key}", expected=f"like {default!r}", got=repr(value)) from error


def _parsed(text: str, default: Any) -> Any:
    if isinstance(default, bool):
        return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
    if isinstance(default, tuple):
        parts = text.lower().replace("x", ",").split(",")
        if len(parts) != len(default):
            raise ValueError(text)
        return tuple(type(default[0])(part) for part in parts)
    return type(default)(text)


# Source of the numbers of the official recipes: method, section Losses and recipe.
_OFFICIAL_DATA = {  # data set -> (label set, (batch, learning rate) of R50c, of R101d and W48)
    "cihp": ("cihp20", (96, 7.5e-4), (128, 1e-3)),
    "lip": ("lip20", (256, 2e-3), (128, 1e-3)),
    "mhp": ("mhp59", (128, 1e-3), (64, 5e-4)),
    "ppp": ("ppp7", (256, 2e-3), (128, 1e-3)),
    "atr": ("atr18", (256, 2e-3), (128, 1e-3)),
}
_IMAGENET: dict[str, Any] = {"mean_rgb": (0.485, 0.456, 0.406), "std_rgb": (0.229, 0.224, 0.225)}
_FULL_NECK: dict[str, Any] = {"width": 256, "iou_hidden": 512}
# Backbone -> settings of its network. Package registries hold ImageNet weights of the Lite family only.
_NETWORKS: dict[str, dict[str, Any]] = {
    "lite0": {},
    "lite1": {},
    "lite2": {},
    "r18": {**_IMAGENET, "pretrained": False},
    "r50c": {"fpn_width": 256, **_FULL_NECK, **_IMAGENET, "pretrained": False},
    "r101d": {"fpn_width": 256, **_FULL_NECK, **_IMAGENET, "pretrained": False},
    "w18": {**_FULL_NECK, **_IMAGENET, "pretrained": False},
    "w32": {**_FULL_NECK, **_IMAGENET, "pretrained": False},
    "w48": {**_FULL_NECK, **_IMAGENET, "pretrained": False},
}
_OFFICIAL_TRAINING: dict[str, Any] = {
    "epochs": 140,
    "optimizer": "adam",
    "backbone_lr_factor": 1.0,
    "weight_decay": 0.0,
    "schedule": "step",
    "milestones": (90 / 140, 120 / 140),
    "warmup_share": 0.0,
    "amp": "off",
    "clip_norm": 0.0,
    "ema_decay": 0.0,
    "lovasz_from": 0.0,
    "loss_stride": 1,
    "lovasz_stride": 1,
    "repeat_threshold": 0.0,
    "scale_range": (0.7, 1.3),
    "scale_std": 0.3,
    "rotation_std_deg": 40.0,
    "rotation_probability": 0.6,
    "shift_std": 0.0,
    "flip_probability": 0.5,
    "colour_jitter": 0.0,
}


def _official() -> Iterator[Recipe]:
    """{cihp,lip,mhp,ppp,atr}-{r50c,r101d,w48}-512x384, and the wider W48 for LIP at 544x416."""
    for data, (labels, small, large) in _OFFICIAL_DATA.items():
        for backbone in ("r50c", "r101d", "w48"):
            batch_size, learning_rate = small if backbone == "r50c" else large
            settings = {**_NETWORKS[backbone], **_OFFICIAL_TRAINING}
            settings |= {"batch_size": batch_size, "learning_rate": learning_rate, "backbone": backbone}
            yield Recipe(f"{data}-{backbone}-512x384", labels, data, (512, 384), **settings)
            if (data, backbone) == ("lip", "w48"):
                yield Recipe("lip-w48-544x416", labels, data, (544, 416), **{**settings, "width": 384})


def _modern() -> Iterator[Recipe]:
    """Clothing Co-Parsing in 13 and 59 classes for every backbone; faces; person masks; the person detector."""
    for labels in ("ccp13", "ccp59"):
        for backbone, network in _NETWORKS.items():
            yield Recipe(f"{labels}-{backbone}", labels, "ccp", (384, 288), backbone=backbone, **network)
    yield Recipe(
        "celebamask19-lite0",
        "celebamask19",
        "celebamask",
        (256, 256),
        backbone="lite0-slim",
        width=48,
        iou_hidden=128,
        rotation_std_deg=10.0,
        scale_std=0.1,
    )
    yield Recipe("person-mask-lite0", "person1", "coco", (256, 192), repeat_threshold=0.0)
    yield Recipe(
        "person-lite0",
        "personbox1",
        "detection",
        (352, 448),
        backbone="lite0-slim",
        width=64,
        frozen_stages=3,
        epochs=36,
        learning_rate=1.5e-3,
        backbone_lr_factor=0.3,
        schedule="level",
        ema_decay=0.998,
        repeat_threshold=0.0,
    )


RECIPE_FILE = "recipe.json"
RECIPES = {r.name: r for r in (*_modern(), *_official())}


def recipe(name: str, settings: Mapping[str, object] | None = None) -> Recipe:
    """The recipe of that name with other settings (see `Recipe.override`).

    Raises:
        QanetError: an unknown recipe, an unknown key, or a value that is not of the key's type.
    """
    if name not in RECIPES:
        near = nearest(name)
        raise QanetError(
            f"unknown recipe {name!r}",
            expected=f"DATA-BACKBONE, such as {near}, or a folder of qanet new; all: qanet train --help",
            got=name,
            next_command=f"qanet train {near}",
        )
    return RECIPES[name].override(settings or {})


@dataclass(frozen=True)
class RecipeFile:
    """A recipe.json: a recipe, the folder of its data, and the checkpoint or bundle to start from."""

    recipe: Recipe
    data: Path
    initial_weights: str | None


def is_recipe_file(name: str | Path) -> bool:
    """Whether a name is that of a recipe.json or of its folder, and not of a recipe."""
    return str(name) not in RECIPES and (Path(name) / RECIPE_FILE).is_file() or Path(name).suffix == ".json"


def read_recipe(path: str | Path, settings: Mapping[str, object] | None = None) -> RecipeFile:
    """The recipe of a recipe.json, or of a folder that has one; paths in it are relative to it.

    Args:
        settings: keys of the recipe with other values than the file's.
    Raises:
        QanetError: no such file, not JSON, or what `recipe` and `Recipe.override` refuse.
    """
    file = Path(path) / RECIPE_FILE if Path(path).is_dir() else Path(path)
    keys = ("name", "recipe", "data", "labels", "initial_weights", "settings")
    try:
        document = json.loads(file.read_text())
        strange = sorted(document.keys() - set(keys))
        if strange or not isinstance(document["name"], str) or not isinstance(document.get("settings", {}), dict):
            raise ValueError(f"unknown key {strange[0]}" if strange else "name or settings of another type")
        base, data = str(document["recipe"]), file.parent / str(document.get("data", "."))
        labels = {"labels": file.parent / document["labels"]} if "labels" in document else {}
        start = document.get("initial_weights")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise QanetError(f"{file} is no recipe", expected=f"an object of {', '.join(keys)}", got=error) from error
    chosen = recipe(base, {**labels, **document.get("settings", {}), **(settings or {})})
    return RecipeFile(dataclasses.replace(chosen, name=document["name"]), data, start and str(start))


def nearest(name: str) -> str:
    """The known recipe closest to a mistyped name."""
    longer = [known for known in RECIPES if known.startswith(name)]
    return (longer or difflib.get_close_matches(name, RECIPES, 1) or list(RECIPES))[0]
