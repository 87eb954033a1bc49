"""A network with its tail as one ONNX graph: normalisation, network, scores and QAM; checked against PyTorch.

Contract of every graph (opset 18): input `crops` uint8 (N, H, W, 3) BGR with a dynamic N, the only axis that is. The
operators after the logits are FP32 by construction, whatever type the network gets later.

- Parsing: also the input `box_scores` float32 (N,), outputs OUTPUTS.
- Masks: as parsing without part scores, outputs MASK_OUTPUTS. `logits` have one channel and `labels` are the mask, 1
  where the probability is 0.5 or more.
- Detection: `crops` are whole images in their letterbox. Outputs `boxes` float32 (N, A, 4) xyxy in input pixels and
  `scores` float32 (N, A); suppression is left to the runtime.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qanet.errors import QanetError
from qanet.labels import PERSON_BOX1
from qanet.quality import MASK_THRESHOLD, PIXEL_SCORE_THRESHOLD, QAM_WEIGHTS
from qanet.train.networks.detector import DetectorNetwork, scores_of
from qanet.train.networks.parser import ParsingNetwork, is_mask_task

OPSET = 18
INPUTS = ("crops", "box_scores")
OUTPUTS = ("logits", "labels", "pixel_scores", "part_scores", "iou_scores", "quality", "part_quality")
MASK_OUTPUTS = ("logits", "labels", "pixel_scores", "iou_scores", "quality")
DETECTION_INPUTS = ("crops",)
DETECTION_OUTPUTS = ("boxes", "scores")
_EPSILON = 1e-6
_SUFFIXES = {"Clip": "relu6", "Relu": "relu", "Add": "sum", "Resize": "up", "MaxPool": "pool", "AveragePool": "pool"}
_TOLERANCE = 2e-3  # logits of some tens, float32, another order of summation
_MAX_LABELS_DIFFERENT = 1e-3


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
        return self.outputs(logits, iou, box_scores)

    def outputs(self, logits: Tensor, iou: Tensor, box_scores: Tensor) -> tuple[Tensor, ...]:
        """Logits (N, C, H/4, W/4), predicted IoU (N,) and box scores (N,) -> OUTPUTS."""
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


class MaskGraph(ParsingGraph):
    """The network with a mask head and its quality module, in operators every runtime has."""

    def __init__(
        self,
        network: ParsingNetwork,
        threshold: float = MASK_THRESHOLD,
        weights: tuple[float, float, float] = QAM_WEIGHTS,
    ):
        super().__init__(network, threshold, weights)

    def forward(self, crops: Tensor, box_scores: Tensor) -> tuple[Tensor, ...]:
        """uint8 BGR crops (N, H, W, 3), box scores (N,) -> MASK_OUTPUTS."""
        logits, iou = self.network(self.network.normalise(crops))
        full = F.interpolate(logits, scale_factor=4, mode="bilinear", align_corners=False)
        mask, pixel = self.mask_scores(full)
        iou = iou.clamp(0.0, 1.0)
        return logits, mask, pixel, iou, self._fuse(box_scores, iou, pixel)

    def mask_scores(self, full: Tensor) -> tuple[Tensor, Tensor]:
        """Mask (N, H, W) uint8 and pixel score (N,) over the crop's own pixels (method, Other tasks).

        The areas are means, as in the parsing graph: a mean fits FP16, a sum over a crop does not.
        """
        probability = full[:, 0].sigmoid()  # (N, H, W)
        possible = (probability >= self.threshold).float().mean((1, 2))
        certain = (probability >= 1 - self.threshold).float().mean((1, 2))
        smallest = 1e-6 / (full.shape[2] * full.shape[3])
        return (probability >= 0.5).to(torch.uint8), certain / possible.clamp(min=smallest)


class DetectionGraph(nn.Module):
    """The detector in operators every runtime has."""

    threshold = PIXEL_SCORE_THRESHOLD  # what every bundle states; a detector has no pixel scores

    def __init__(self, network: DetectorNetwork):
        super().__init__()
        self.network = network

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 BGR images (N, H, W, 3) -> boxes (N, A, 4), scores (N, A)."""
        raw = self.network(self.network.normalise(crops))
        return raw.boxes, scores_of(raw)


def graph_of(network: Any, labels: str) -> tuple[nn.Module, tuple[str, ...], tuple[str, ...]]:
    """The graph of a network that was trained on a label set, and the names of its inputs and outputs.

    Args:
        network: ParsingNetwork or DetectorNetwork.
        labels: name of the label set.
    """
    if labels == PERSON_BOX1.name:
        return DetectionGraph(network), DETECTION_INPUTS, DETECTION_OUTPUTS
    if is_mask_task(labels):
        return MaskGraph(network), INPUTS, MASK_OUTPUTS
    return ParsingGraph(network), INPUTS, OUTPUTS


def to_onnx(
    graph: nn.Module,
    outputs: Sequence[str],
    input_hw: tuple[int, int],
    inputs: Sequence[str] = INPUTS,
    example: tuple[Tensor, ...] | None = None,
) -> bytes:
    """The FP32 ONNX file of a graph, batch norm folded into the convolutions; deterministic for the same weights.

    Args:
        graph: of `graph_of`; put into eval mode.
        outputs: names of its outputs, in order.
        input_hw: crop size (H, W) pixels, multiples of 32.
        inputs: names of its inputs: the first, or both, of INPUTS.
        example: a batch of two for other inputs.
    """
    import onnx

    graph.eval()
    if example is None:
        example = (torch.zeros((2, *input_hw, 3), dtype=torch.uint8), torch.ones(2))[: len(inputs)]
    batch = torch.export.Dim("N", min=1, max=64)
    with _out_of_place(graph):
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
    data: bytes = model.SerializeToString(deterministic=True)
    return data


@contextlib.contextmanager
def _out_of_place(graph: nn.Module) -> Iterator[None]:
    """No activation overwrites its input: the exporter takes a third less time, and its file is the same."""
    changed: list[Any] = [module for module in graph.modules() if getattr(module, "inplace", False)]
    for module in changed:
        module.inplace = False
    try:
        yield
    finally:
        for module in changed:
            module.inplace = True


def has_free_batch(graph: bytes) -> bool:
    """Whether the first axis of every input is open; the exporter fixes it where a module looks at it."""
    import onnx

    inputs = onnx.load_model_from_string(graph).graph.input
    return all(bool(value.type.tensor_type.shape.dim[0].dim_param) for value in inputs)


def _tidy(model: Any, outputs: Sequence[str]) -> None:
    """Drop the exporter's traces of this machine and name every node and tensor after the module it came from.

    Users read these names in scales.json, in a census and in a profiler: `backbone.blocks.3.expand`.
    """
    model.producer_name, model.producer_version = "qanet-edge", ""
    graph = model.graph
    graph.name = "qanet"
    for value in (*graph.value_info, *graph.input, *graph.output, *graph.initializer, *graph.node, graph, model):
        del value.metadata_props[:]
    new_names = {tensor.name: tensor.name.removeprefix("network.") for tensor in graph.initializer}
    taken = {*(value.name for value in graph.input), *outputs, *new_names.values()}
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
    """A convolution's output has the name of its module; nodes behind it append their operation."""
    first = new_names.get(node.input[0], node.input[0]) if node.input else ""
    if node.op_type in ("Conv", "Gemm"):
        weight = new_names.get(node.input[1], node.input[1]).removesuffix(".weight")
        return weight.removesuffix(".0") if node.op_type == "Conv" else weight
    suffix = _SUFFIXES.get(node.op_type)
    if suffix and "." in first:
        return f"{first}.{suffix}"
    return node.op_type.lower()


def check_parity(
    graph: nn.Module,
    outputs: Sequence[str],
    input_hw: tuple[int, int],
    data: bytes,
    seed: int = 0,
    inputs: Sequence[str] = INPUTS,
) -> dict[str, float]:
    """Run one smooth random batch of two through PyTorch and ONNX Runtime.

    Args:
        graph: of `graph_of`.
        data: its ONNX file by `to_onnx`.
    Returns:
        Output name -> greatest absolute difference; of `labels` the share of pixels that differ.
    Raises:
        QanetError: an output departs by more than rounding explains.
    """
    import onnxruntime

    feed = (_smooth_crops(2, input_hw, seed), np.array([1.0, 0.5], np.float32))[: len(inputs)]
    with torch.inference_mode():
        expected = graph.eval()(*map(torch.from_numpy, feed))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    got = session.run(list(outputs), dict(zip(inputs, feed)))
    differences: dict[str, float] = {}
    for name, ours, theirs in zip(outputs, expected, got):
        a, b = ours.numpy(), np.asarray(theirs)
        if name == "labels":
            differences[name], limit = float((a != b).mean()), _MAX_LABELS_DIFFERENT
        else:
            differences[name], limit = float(np.abs(a - b).max()), _TOLERANCE * max(1.0, float(np.abs(a).max()))
        if not differences[name] <= limit:
            raise QanetError(f"the exported graph departs from the network at {name}", expected=limit, got=differences)
    return differences


def _smooth_crops(count: int, hw: tuple[int, int], seed: int) -> np.ndarray:
    """uint8 (count, H, W, 3) of soft blobs: noise would make every label a near-tie."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.uniform(0, 255, (count, 3, hw[0] // 32, hw[1] // 32)).astype(np.float32))
    fine = torch.nn.functional.interpolate(coarse, size=hw, mode="bicubic", align_corners=False)
    return np.ascontiguousarray(fine.clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy())
