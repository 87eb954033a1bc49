"""Graphs of small networks, each exported once in a test session: an export takes seconds to a minute."""

import functools
from typing import NamedTuple

import pytest
import torch
from tiny_networks import FAMILIES, lively_network, register, tiny_recipe

from qanet.export.graphs.network import OUTPUTS, ParsingGraph, to_onnx
from qanet.train.recipes import recipe

SIZE = (64, 96)


class Exported(NamedTuple):
    """A recipe, its network with random weights, and the contents of its ONNX file for crops of SIZE."""

    recipe: object
    network: torch.nn.Module
    graph: bytes


@functools.cache
def exported(family):
    """The graph of a tiny family, or of "lite0" with narrow heads."""
    settings = {"width": "16", "iou_hidden": "16", "pretrained": "false", "input_hw": "64x96"}
    with pytest.MonkeyPatch.context() as patch:
        register(patch)
        chosen = tiny_recipe(family) if family in FAMILIES else recipe("ccp13-lite0", settings)
        network = lively_network(chosen)
        return Exported(chosen, network, to_onnx(ParsingGraph(network), OUTPUTS, SIZE))
