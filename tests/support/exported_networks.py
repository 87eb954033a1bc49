"""Graphs of small networks, each exported once for all processes and runs: an export takes seconds to a minute."""

import contextlib
import functools
import importlib.metadata
from typing import NamedTuple

import pytest
import torch
from made_once import made_once, sources
from tiny_networks import FAMILIES, lively_network, register, tiny_recipe

from qanet.export.graphs import network as graphs
from qanet.export.graphs.network import OUTPUTS, ParsingGraph
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
        return Exported(chosen, network, exported_graph(ParsingGraph(network), OUTPUTS, SIZE))


_to_onnx = graphs.to_onnx


def exported_graph(module, outputs, input_hw, inputs=graphs.INPUTS):
    """`to_onnx`, which gives the same bytes for the same weights, by the cache of `made_once`."""
    weights = [part for name, value in module.state_dict().items() for part in (name, value.numpy().tobytes())]
    versions = [importlib.metadata.version(name) for name in ("torch", "onnx", "onnxscript")]
    settings = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    parts = [*versions, *sources("export/graphs", "train/networks"), module, settings, *weights]
    parts += [outputs, input_hw, inputs]
    path = made_once("graph.onnx", parts, lambda path: path.write_bytes(_to_onnx(module, outputs, input_hw, inputs)))
    return path.read_bytes()


@contextlib.contextmanager
def exports_kept():
    """`qanet export` takes graphs that were exported before; for tests of what comes after an export."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graphs, "to_onnx", exported_graph)
        yield
