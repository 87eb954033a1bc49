"""The person detector -> ONNX: normalisation, network, boxes and scores in one graph.

Contract (opset 18): input `crops` uint8 (N, H, W, 3) BGR, whole images in their letterbox, so called because every
graph of the project takes its pixels by that name; outputs `boxes` float32 (N, A, 4) xyxy in input pixels and `scores`
float32 (N, A). Suppression is left to the runtime. Everything after the heads' last convolutions is FP32 by
construction.
"""

from torch import Tensor, nn

from qanet.quality import PIXEL_SCORE_THRESHOLD
from qanet.train.networks.detector import DetectorNetwork, scores_of

DETECTION_INPUTS = ("crops",)
DETECTION_OUTPUTS = ("boxes", "scores")


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
