"""The network of a recipe, whatever its task."""

from typing import Any

from qanet.train.networks import parser
from qanet.train.networks.detector import DetectorNetwork, is_detection_task
from qanet.train.recipe import Recipe


def build(recipe: Recipe) -> Any:
    """A ParsingNetwork, or for detection a DetectorNetwork, with random weights.

    Any, since what a caller does with it depends on the task it was written for; both are a `Network`.
    """
    return DetectorNetwork(recipe) if is_detection_task(recipe.labels) else parser.build(recipe)
