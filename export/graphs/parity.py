"""Does the exported graph compute what the network computes? PyTorch against ONNX Runtime, output by output."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from qanet.errors import QanetError
from qanet.export.graphs.parsing import INPUTS, OUTPUTS, ParsingGraph
from qanet.train.networks.parser import ParsingNetwork

_TOLERANCE = 2e-3  # logits of some tens, float32, another order of summation
_MAX_LABELS_DIFFERENT = 1e-3


def check_parity(network: ParsingNetwork, input_hw: tuple[int, int], path: Path, seed: int = 0) -> dict[str, float]:
    """`compare` for a parsing network."""
    return compare(ParsingGraph(network), OUTPUTS, input_hw, path, seed)


def compare(
    graph: nn.Module,
    outputs: Sequence[str],
    input_hw: tuple[int, int],
    path: Path,
    seed: int = 0,
    inputs: Sequence[str] = INPUTS,
) -> dict[str, float]:
    """Run one smooth random batch of two through both; the greatest absolute difference of each output.

    Labels report the share of pixels that differ.

    Raises:
        QanetError: an output departs by more than rounding explains.
    """
    import onnxruntime

    feed = (_smooth_crops(2, input_hw, seed), np.array([1.0, 0.5], np.float32))[: len(inputs)]
    with torch.inference_mode():
        expected = graph.eval()(*map(torch.from_numpy, feed))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
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
