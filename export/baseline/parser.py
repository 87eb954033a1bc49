"""The whole parser as the official code runs it, in PyTorch: what `qanet benchmark --baseline` times beside ours.

The network in FP32 on the CPU with the bundle's own weights, then `qanet.export.baseline.tail`: every person's class
probabilities pasted to the whole image, reduced class by class, and fused. Cropping is the core's, and duplicates are
not looked for: both are in the baseline's favour.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from qanet.bundle import Bundle
from qanet.errors import QanetError
from qanet.export.baseline.tail import pixel_score
from qanet.geometry import crop_boxes, crop_people
from qanet.quality import PixelScores, clamp_iou, fuse_quality

_WEIGHTS = "model.safetensors"

Parsed = tuple[PixelScores, NDArray[np.float32]]
Parse = Callable[[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]], Parsed]


def open_baseline(bundle: Bundle, threads: int | None = None) -> Parse:
    """Load the network of a bundle.

    Args:
        threads: of PyTorch, for the whole process; None leaves the choice to it.
    Returns:
        A function of image (H, W, 3) uint8 BGR, boxes (N, 4) xyxy pixels and box scores (N,) that gives labels with
        pixel scores, and the fused quality (N,).
    Raises:
        QanetError: the bundle lacks its weights, or they are broken.
    """
    from qanet.train.weights import load_weights

    if _WEIGHTS not in bundle.manifest["files"]:
        raise QanetError(
            f"{bundle.path} holds no weights to run in PyTorch",
            expected=_WEIGHTS,
            got="only graphs",
            next_command="qanet export CHECKPOINT --output NAME.qanet",
        )
    bundle.read(_WEIGHTS)  # checks the hash
    network, _ = load_weights(bundle.path / _WEIGHTS)
    network.eval()
    if threads:
        torch.set_num_threads(threads)

    def parse(image: NDArray[np.uint8], boxes: NDArray[np.float32], box_scores: NDArray[np.float32]) -> Parsed:
        grown = crop_boxes(boxes, bundle.input_hw)
        crops = torch.from_numpy(crop_people(image, grown, bundle.input_hw))
        with torch.inference_mode():
            logits, predicted_iou = _forward(network, crops)
        scored = pixel_score(logits.numpy(), grown, (image.shape[0], image.shape[1]), bundle.threshold)
        iou = clamp_iou(predicted_iou.numpy().reshape(-1))
        box = np.clip(box_scores, 0, 1)
        return scored, fuse_quality(box, iou, scored.pixel_scores, bundle.qam_weights)

    return parse


def _forward(network: Any, crops: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, H, W, 3) uint8 -> logits (N, C, H/4, W/4) and IoU (N,), FP32."""
    logits, predicted_iou = network(network.normalise(crops))
    return logits, predicted_iou
