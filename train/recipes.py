"""The recipes by name: the official ones of the method, and modern ones for every backbone."""

import difflib
from collections.abc import Iterator
from typing import Any

from qanet.errors import QanetError
from qanet.train.recipe import Recipe

# Source of every number: method, section Losses and recipe.
_OFFICIAL_DATA = {  # data set -> (label set, (batch, learning rate) of R50c, of R101d and W48)
    "cihp": ("cihp20", (96, 7.5e-4), (128, 1e-3)),
    "lip": ("lip20", (256, 2e-3), (128, 1e-3)),
    "mhp": ("mhp59", (128, 1e-3), (64, 5e-4)),
    "ppp": ("ppp7", (256, 2e-3), (128, 1e-3)),
    "atr": ("atr18", (256, 2e-3), (128, 1e-3)),
}
_IMAGENET: dict[str, Any] = {"mean_rgb": (0.485, 0.456, 0.406), "std_rgb": (0.229, 0.224, 0.225)}
_FULL_NECK: dict[str, Any] = {"width": 256, "iou_hidden": 512}
# Backbone -> what stands on it. Package registries have ImageNet weights of the Lite family only.
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
    """{cihp,lip,mhp,ppp,atr}-{r50c,r101d,w48}-512x384, and the wide W48 of LIP at 544x416."""
    for data, (labels, small, large) in _OFFICIAL_DATA.items():
        for backbone in ("r50c", "r101d", "w48"):
            batch_size, learning_rate = small if backbone == "r50c" else large
            settings = {**_NETWORKS[backbone], **_OFFICIAL_TRAINING}
            settings |= {"batch_size": batch_size, "learning_rate": learning_rate, "backbone": backbone}
            yield Recipe(f"{data}-{backbone}-512x384", labels, data, (512, 384), **settings)
            if (data, backbone) == ("lip", "w48"):
                yield Recipe("lip-w48-544x416", labels, data, (544, 416), **{**settings, "width": 384})


def _modern() -> Iterator[Recipe]:
    """Clothing Co-Parsing with 13 and 59 classes, every backbone; faces with the slim one."""
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


RECIPES = {r.name: r for r in (*_modern(), *_official())}


def recipe(name: str, overrides: dict[str, str] | None = None) -> Recipe:
    """The recipe of that name with `key=value` overrides.

    Raises:
        QanetError: an unknown recipe, an unknown key, or a value that is not of the key's type.
    """
    if name not in RECIPES:
        near = nearest(name)
        raise QanetError(
            f"unknown recipe {name!r}",
            expected=f"DATA-BACKBONE, such as {near}; all: qanet train --help",
            got=name,
            next_command=f"qanet train {near}",
        )
    return RECIPES[name].override(overrides or {})


def nearest(name: str) -> str:
    """The known recipe that a mistyped name most likely means."""
    longer = [known for known in RECIPES if known.startswith(name)]
    return (longer or difflib.get_close_matches(name, RECIPES, 1) or list(RECIPES))[0]
