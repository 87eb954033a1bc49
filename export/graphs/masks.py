"""The mask network -> ONNX: normalisation, network, mask, pixel score and QAM in one graph.

The contract is the parsing graph's (`qanet.export.graphs.parsing`) without its part scores: `logits` have one channel
and `labels` are the mask, 1 where the probability is 0.5 or more. All after the logits is FP32 by construction.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from qanet.export.graphs.parsing import OUTPUTS, ParsingGraph
from qanet.quality import MASK_THRESHOLD, QAM_WEIGHTS
from qanet.train.networks.parser import ParsingNetwork, is_mask_task

MASK_OUTPUTS = ("logits", "labels", "pixel_scores", "iou_scores", "quality")


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


def graph_of(network: ParsingNetwork, labels: str) -> tuple[ParsingGraph, tuple[str, ...]]:
    """The graph of a network that was trained on that label set, and its outputs' names."""
    if is_mask_task(labels):
        return MaskGraph(network), MASK_OUTPUTS
    return ParsingGraph(network), OUTPUTS
