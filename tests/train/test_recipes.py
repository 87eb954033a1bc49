"""Recipes: overrides keep their types, and every mistake is named."""

import pytest

from qanet.errors import QanetError
from qanet.train.recipes import RECIPES, Recipe, recipe


def test_overrides_keep_the_types_of_the_defaults():
    changed = recipe(
        "ccp13-lite0", {"epochs": "3", "learning_rate": "1e-4", "input_hw": "128x96", "pretrained": "false"}
    )
    assert (changed.epochs, changed.learning_rate, changed.input_hw, changed.pretrained) == (3, 1e-4, (128, 96), False)
    assert recipe("ccp13-lite0").epochs != 3


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_json_round_trip(name):
    assert Recipe.from_json(recipe(name).to_json()) == recipe(name)


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("ccp13-lite", {}, "ccp13-lite0"),
        ("ccp13-lite0", {"epoch": "3"}, "did you mean epochs"),
        ("ccp13-lite0", {"epochs": "three"}, "expected like 30"),
        ("ccp13-lite0", {"input_hw": "128"}, "bad value for input_hw"),
        ("ccp13-lite0", {"name": "mine"}, "no key"),
    ],
)
def test_mistakes_are_named(name, overrides, message):
    with pytest.raises(QanetError, match=message):
        recipe(name, overrides)
