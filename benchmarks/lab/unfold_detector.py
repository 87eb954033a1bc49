"""A checkpoint out of a detector's bundle, to go on training from: the shipped bundle has none.

    python -m qanet.benchmarks.lab.unfold_detector person-lite0 --data people --output person.safetensors

In the graph every batch norm is folded into its convolution. Here each gets back what training needs: the mean and the
variance of the folded convolution's output on training images, and the scale and offset that undo them. In evaluation
the network computes what the graph does; in training its batch norms see the statistics they expect.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from qanet.bundle import Bundle, open_bundle
from qanet.commandline import CommandParser, emit, run_module
from qanet.errors import QanetError
from qanet.labels import PERSON_BOX1
from qanet.train.detection.data import SIDE_PX, DetectionData
from qanet.train.detection.photographs import LABELLED, read_photographs
from qanet.train.networks import build
from qanet.train.networks.detector import DetectorNetwork
from qanet.train.recipes import Recipe
from qanet.train.weights import save_weights

_LEAST_VARIANCE = 1e-6  # of a channel that is always the same


def unfold(bundle: Bundle, windows: NDArray[np.uint8]) -> tuple[DetectorNetwork, Recipe]:
    """The network of a detector's graph, in evaluation mode, and its recipe.

    Args:
        windows: (N, H, W, 3) uint8 BGR of the kind it is to learn from, sides multiples of 32.
    Raises:
        QanetError: no detector, or a graph that is not the recipe's network.
    """
    if bundle.labels != PERSON_BOX1:
        raise QanetError(f"{bundle.name} does not detect people", expected=PERSON_BOX1.name, got=bundle.labels.name)
    recipe = Recipe.from_json(json.dumps({**bundle.manifest["made"]["recipe"], "pretrained": False}))
    network = build(recipe).eval()
    modules: dict[str, Any] = dict(network.named_modules())
    norms: list[nn.BatchNorm2d] = []
    for name, weight, bias in _convolutions(bundle.graph("fp32")):
        convolution = modules.get(name)
        if convolution is None or convolution.weight.shape != weight.shape:
            raise QanetError(f"{bundle.name}: its graph is not the network of its recipe", got=name)
        convolution.weight.data.copy_(weight)
        if convolution.bias is not None:
            convolution.bias.data.copy_(bias)
            continue
        parent, index = name.rsplit(".", 1)
        norm = modules[f"{parent}.{int(index) + 1}"]
        norm.running_mean.zero_()
        norm.running_var.fill_(1 - norm.eps)
        norm.weight.data.fill_(1)
        norm.bias.data.copy_(bias)
        norms.append(norm)
    if len(norms) != sum(isinstance(module, nn.BatchNorm2d) for module in modules.values()):
        raise QanetError(f"{bundle.name}: its graph is not the network of its recipe", got=f"{len(norms)} convolutions")
    for norm, (mean, variance) in _statistics(network, norms, windows).items():
        assert norm.running_mean is not None and norm.running_var is not None
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        norm.weight.data.copy_((variance + norm.eps).sqrt())
        norm.bias.data.add_(mean)
    return network, recipe


def _convolutions(graph: bytes) -> list[tuple[str, Tensor, Tensor]]:
    """Module, weight and bias of every convolution of an ONNX graph."""
    import onnx

    model = onnx.load_model_from_string(graph)
    constants = {t.name: t for t in model.graph.initializer}
    found = []
    for node in model.graph.node:
        if node.op_type == "Conv" and len(node.input) == 3 and set(node.input[1:]) <= constants.keys():
            weight, bias = (torch.from_numpy(onnx.numpy_helper.to_array(constants[n]).copy()) for n in node.input[1:])
            found.append((node.input[1].removesuffix(".weight"), weight, bias))
    return found


@torch.inference_mode()
def _statistics(
    network: DetectorNetwork, norms: list[nn.BatchNorm2d], windows: NDArray[np.uint8]
) -> dict[nn.BatchNorm2d, tuple[Tensor, Tensor]]:
    """Mean and variance (C,) of what goes into each batch norm."""
    seen: dict[nn.BatchNorm2d, tuple[Tensor, Tensor]] = {}

    def note_input(norm: nn.BatchNorm2d, given: tuple[Tensor, ...]) -> None:
        seen[norm] = given[0].mean((0, 2, 3)), given[0].var((0, 2, 3)).clamp(min=_LEAST_VARIANCE)

    hooks = [norm.register_forward_pre_hook(note_input) for norm in norms]
    network(network.normalise(torch.from_numpy(windows)))
    for hook in hooks:
        hook.remove()
    return seen


def main(argv: Sequence[str]) -> int:
    """Entry point."""
    parser = CommandParser(prog="python -m qanet.benchmarks.lab.unfold_detector", description=__doc__.split("\n")[0])
    parser.add_argument("bundle", metavar="NAME.qanet")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="photographs of people")
    parser.add_argument("--windows", type=_count, default=48, metavar="N", help="training images (48)")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.safetensors")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    data = DetectionData([p for p in read_photographs(args.data) if p.kind == LABELLED], args.windows)
    rng = np.random.default_rng(0)
    windows = [data.draw(SIDE_PX, rng)[0] for _ in range(args.windows)]
    network, recipe = unfold(open_bundle(args.bundle), np.stack(windows))
    save_weights(args.output, network, recipe)
    emit(args.json, {"output": str(args.output), "windows": len(windows)}, f"wrote {args.output}")
    return 0


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 2:
        raise argparse.ArgumentTypeError(f"expected 2 or more, got {text}")
    return int(text)


if __name__ == "__main__":
    run_module(main)
