"""Recipes: everything that decides what a training run produces, as one frozen record per name."""

import dataclasses
import difflib
import json
from dataclasses import dataclass
from typing import Any

from qanet.errors import QanetError
from qanet.labels import LABEL_SETS


@dataclass(frozen=True)
class Recipe:
    """A network, its data and its schedule. Defaults are the modern recipe of the edge family."""

    name: str
    labels: str  # key of qanet.labels.LABEL_SETS
    data_format: str  # key of qanet.train.data.datasets
    input_hw: tuple[int, int]
    backbone: str = "lite0"
    pretrained: bool = True  # ImageNet weights from a registry package
    width: int = 96  # channels of the panoptic feature
    iou_hidden: int = 256  # channels of the IoU head's hidden layers
    mean_rgb: tuple[float, float, float] = (0.5, 0.5, 0.5)  # of images in 0..1
    std_rgb: tuple[float, float, float] = (0.5, 0.5, 0.5)

    epochs: int = 30
    batch_size: int = 16
    learning_rate: float = 2e-3
    backbone_lr_factor: float = 0.35
    weight_decay: float = 0.02
    warmup_share: float = 0.05  # of all steps; then cosine to zero
    clip_norm: float = 5.0
    ema_decay: float = 0.995
    ce_weight: float = 1.0
    lovasz_weight: float = 1.0
    lovasz_from: float = 0.3  # share of the run that trains on cross-entropy alone
    lovasz_stride: int = 2  # Lovasz sees every stride-th pixel per axis, at a random phase
    iou_weight: float = 1.0
    repeat_threshold: float = 0.4  # repeat-factor sampling: classes in fewer images than this share come oftener

    scale_range: tuple[float, float] = (0.7, 1.3)
    scale_std: float = 0.2
    rotation_std_deg: float = 15.0
    rotation_probability: float = 0.5
    shift_std: float = 0.05  # of the crop's size
    flip_probability: float = 0.5
    colour_jitter: float = 0.3
    seed: int = 0

    @property
    def num_classes(self) -> int:
        """Classes C, background included."""
        return LABEL_SETS[self.labels].num_classes

    def to_json(self) -> str:
        """One line of JSON, stored in every checkpoint."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @staticmethod
    def from_json(text: str) -> "Recipe":
        """Inverse of `to_json`."""
        fields: dict[str, Any] = json.loads(text)
        return Recipe(**{k: _as_tuple(v) for k, v in fields.items()})


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


RECIPES = {
    r.name: r
    for r in (
        Recipe("ccp13-lite0", labels="ccp13", data_format="ccp", input_hw=(384, 288)),
        Recipe("ccp59-lite0", labels="ccp59", data_format="ccp", input_hw=(384, 288)),
        Recipe(
            "celebamask19-lite0", labels="celebamask19", data_format="celebamask", input_hw=(384, 384),
            rotation_std_deg=10.0, scale_std=0.1,
        ),
    )
}  # fmt: skip


def recipe(name: str, overrides: dict[str, str] | None = None) -> Recipe:
    """The recipe of that name with `key=value` overrides, each value in the type of its default.

    Raises:
        QanetError: unknown recipe, unknown key, or a value that is not of the key's type.
    """
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, 1)
        raise QanetError(
            f"unknown recipe {name!r}", expected=f"one of {', '.join(RECIPES)}", got=name,
            next_command=f"qanet train {near[0] if near else next(iter(RECIPES))}",
        )  # fmt: skip
    base = RECIPES[name]
    fields = {f.name: getattr(base, f.name) for f in dataclasses.fields(Recipe)}
    changes: dict[str, Any] = {}
    for key, text in (overrides or {}).items():
        if key not in fields or key == "name":
            near = difflib.get_close_matches(key, fields, 1)
            hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(fields)}"
            raise QanetError(f"recipe {name} has no key {key!r}", next_command=hint)
        changes[key] = _parse(key, text, fields[key])
    return dataclasses.replace(base, **changes)


def _parse(key: str, text: str, default: Any) -> Any:
    try:
        if isinstance(default, bool):
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        if isinstance(default, tuple):
            parts = text.lower().replace("x", ",").split(",")
            values = tuple(type(default[0])(p) for p in parts)
            if len(values) != len(default):
                raise ValueError(text)
            return values
        return type(default)(text)
    except (ValueError, KeyError) as error:
        raise QanetError(f"bad value for {key}", expected=f"like {default!r}", got=repr(text)) from error
