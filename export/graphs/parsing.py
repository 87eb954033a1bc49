"""Checkpoint -> ONNX: normalisation, network, pixel score and QAM in one graph (the graph tail).

Contract of the graph (opset 18): inputs `crops` uint8 (N, H, W, 3) BGR and `box_scores` float32 (N,); outputs
as in OUTPUTS. N is dynamic. Everything after the logits is FP32 by construction, whatever the network becomes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qanet.quality import PIXEL_SCORE_THRESHOLD, QAM_WEIGHTS
from qanet.train.networks.parser import ParsingNetwork

OPSET = 18
INPUTS = ("crops", "box_scores")
OUTPUTS = ("logits", "labels", "pixel_scores", "part_scores", "iou_scores", "quality", "part_quality")
_EPSILON = 1e-6
_SUFFIXES = {"Clip": "relu6", "Relu": "relu", "Add": "sum", "Resize": "up", "MaxPool": "pool", "AveragePool": "pool"}


class ParsingGraph(nn.Module):
    """The network with its quality module, in operators every runtime has."""

    def __init__(
        self,
        network: ParsingNetwork,
        threshold: float = PIXEL_SCORE_THRESHOLD,
        weights: tuple[float, float, float] = QAM_WEIGHTS,
    ):
        super().__init__()
        self.network = network
        self.threshold = threshold
        self.weights = weights

    def forward(self, crops: Tensor, box_scores: Tensor) -> tuple[Tensor, ...]:
        logits, iou = self.network(self.network.normalise(crops))
        full = F.interpolate(logits, scale_factor=4, mode="bilinear", align_corners=False)
        labels, pixel, part = self._scores(full)
        iou = iou.clamp(0.0, 1.0)
        quality = self._fuse(box_scores, iou, pixel)
        part_quality = self._fuse(box_scores[:, None], iou[:, None], part)
        return logits, labels, pixel, part, iou, quality, part_quality

    def _scores(self, full: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pixel and part scores over the crop's own pixels (method, Pixel score; here the crop is the image).

        The class of a pixel is the least index among those that reach the maximum, not an ArgMax: the same number,
        first class on a tie. TensorRT-RTX 1.7 makes a TopK kernel of its own of an ArgMax, for which the probabilities
        go through memory once more, and fuses this with the softmax into one kernel; OpenVINO takes the same time.
        """
        num_classes = full.shape[1]
        probabilities = full.softmax(1)  # (N, C, H, W)
        confidence = probabilities.amax(1)  # (N, H, W)
        index = torch.arange(num_classes, dtype=torch.float32, device=full.device).view(1, -1, 1, 1)
        best = probabilities == confidence[:, None]
        last = torch.full((), num_classes - 1.0, device=full.device)  # where nothing is best (nan): a class in range
        winner = torch.where(best, index, last).amin(1)  # (N, H, W)
        certain = (confidence >= self.threshold).float()
        weighted = confidence * certain
        # The sums over a crop are means first: a sum of 110,592 ones would not fit FP16, a mean always does.
        count = certain.mean((1, 2))
        total = weighted.mean((1, 2))
        smallest = _EPSILON / (full.shape[2] * full.shape[3])
        pixel = total / count.clamp(min=smallest)
        here = (winner[:, None] == index[:, 1:]).float()  # (N, C - 1, H, W)
        part_total = (here * weighted[:, None]).mean((2, 3))
        part_count = (here * certain[:, None]).mean((2, 3))
        part = part_total / part_count.clamp(min=smallest)
        labels = torch.where(confidence >= 1 / num_classes, winner, torch.zeros_like(winner)).to(torch.uint8)
        return labels, pixel, part

    def _fuse(self, box: Tensor, iou: Tensor, pixel: Tensor) -> Tensor:
        """QAM (method, QAM) on scores that are clamped to [0, 1], so that no power sees a negative base."""
        a, b, g = self.weights
        scores = ((box.clamp(0.0, 1.0), a), (iou, b), (pixel, g))
        factors = [score if exponent == 1 else score.pow(exponent) for score, exponent in scores if exponent]
        product = factors[0]
        for factor in factors[1:]:
            product = product * factor
        return product.pow(1 / (a + b + g))


def export_onnx(network: ParsingNetwork, input_hw: tuple[int, int], path: Path) -> None:
    """Write the FP32 graph, batch norm folded into the convolutions; deterministic for the same weights.

    Args:
        network: eval-mode network.
        input_hw: crop size (H, W) pixels, multiples of 32.
    """
    write_onnx(ParsingGraph(network), OUTPUTS, input_hw, path)


def write_onnx(
    graph: nn.Module, outputs: Sequence[str], input_hw: tuple[int, int], path: Path, inputs: Sequence[str] = INPUTS
) -> None:
    """Write a graph of these inputs (the first, or all, of INPUTS) and the named outputs; see `export_onnx`."""
    import onnx

    graph.eval()
    example = (torch.zeros((2, *input_hw, 3), dtype=torch.uint8), torch.ones(2))[: len(inputs)]
    batch = torch.export.Dim("N", min=1, max=64)
    program = torch.onnx.export(
        graph,
        example,
        dynamo=True,
        opset_version=OPSET,
        input_names=list(inputs),
        output_names=list(outputs),
        dynamic_shapes={name: {0: batch} for name in inputs},
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    _tidy(model, outputs)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def _tidy(model: Any, outputs: Sequence[str]) -> None:
    """Drop the exporter's traces of this machine and name every node and tensor after the module it came from.

    The names are what a user reads in scales.json, in a census and in a profiler: `backbone.blocks.3.expand`.
    """
    model.producer_name, model.producer_version = "qanet-edge", ""
    graph = model.graph
    graph.name = "qanet"
    for value in (*graph.value_info, *graph.input, *graph.output, *graph.initializer, *graph.node, graph, model):
        del value.metadata_props[:]
    new_names = {tensor.name: tensor.name.removeprefix("network.") for tensor in graph.initializer}
    taken = {*INPUTS, *outputs, *new_names.values()}
    for node in graph.node:
        node.doc_string = ""
        for output in node.output:
            if output in outputs:
                continue
            name = _tensor_name(node, new_names)
            while name in taken:
                stem, _, number = name.rpartition("_")
                name = f"{stem}_{int(number) + 1}" if stem and number.isdigit() else f"{name}_2"
            taken.add(name)
            new_names[output] = name
        node.name = new_names.get(node.output[0], node.output[0])
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [new_names.get(n, n) for n in names]
    for value in (*graph.value_info, *graph.initializer):
        value.name = new_names.get(value.name, value.name)


def _tensor_name(node: Any, new_names: dict[str, str]) -> str:
    """A convolution's output is called as its module; what follows it appends what it does."""
    first = new_names.get(node.input[0], node.input[0]) if node.input else ""
    if node.op_type in ("Conv", "Gemm"):
        weight = new_names.get(node.input[1], node.input[1]).removesuffix(".weight")
        return weight.removesuffix(".0") if node.op_type == "Conv" else weight
    suffix = _SUFFIXES.get(node.op_type)
    if suffix and "." in first:
        return f"{first}.{suffix}"
    return node.op_type.lower()
