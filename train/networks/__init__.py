"""Networks as plain torch modules: backbones, the parsing network with its heads, the person detector."""

from typing import Any

from qanet.train.networks.detector import DetectorNetwork, is_detection_task
from qanet.train.networks.parser import ParsingNetwork
from qanet.train.recipes import Recipe


def build(recipe: Recipe) -> Any:
    """A ParsingNetwork, or for a detection recipe a DetectorNetwork, with random weights.

    Typed Any because the caller knows the task from its recipe; both classes are a `Network`.
    """
    return DetectorNetwork(recipe) if is_detection_task(recipe.labels) else ParsingNetwork(recipe)
