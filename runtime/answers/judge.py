"""How far an engine's answers are from the known ones, and how far they may be.

Of maps: the RMS of the error over the RMS of the value. Of scores, which lie between 0 and 1: the largest error; of
parts the mean over those that both sides see, since small ones come and go. Of labels: the share of pixels that differ.
Of a detector: among the candidates that either side gives a score of 0.2 or more, the largest error of a score, and of
a box in sides of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.errors import QanetError

# Against a graph's own answers. Seen with the bundled networks and R50c in OpenVINO, logits: FP32 5e-7, FP16 8e-4, BF16
# 2e-2, INT8 3e-2; with INT8 on a CPU whose 16-bit sums saturate: 0.34.
TOLERANCES: dict[str, dict[str, float]] = {
    "fp32": {"map": 2e-3, "score": 2e-3, "label": 1e-3, "box": 2e-3},
    "fp16": {"map": 1e-2, "score": 1e-2, "label": 1e-2, "box": 1e-2},
    "bf16": {"map": 5e-2, "score": 5e-2, "label": 5e-2, "box": 5e-2},
    "int8": {"map": 6e-2, "score": 5e-2, "label": 5e-2, "box": 6e-2},
    "fp8": {"map": 1e-1, "score": 1e-1, "label": 1e-1, "box": 1e-1},
}
COARSER = 2.0  # so many times as much where a narrow graph can only be compared with FP32
_CANDIDATE = 0.2


@dataclass(frozen=True)
class Difference:
    """How far an output is from what is known, and how far it may be."""

    name: str
    value: float
    limit: float

    @property
    def departs(self) -> bool:
        """Also for NaN."""
        return not self.value <= self.limit

    def __str__(self) -> str:
        return f"{self.name} {self.value:.3g} (limit {self.limit:g})"


def compare(
    reference: Mapping[str, NDArray[Any]], got: Mapping[str, NDArray[Any]], limits: Mapping[str, float]
) -> list[Difference]:
    """Each output of the engine against the reference, in the engine's order.

    Args:
        limits: one entry of TOLERANCES.
    Raises:
        QanetError: an output of another shape.
    """
    differences = []
    for name, values in got.items():
        expected, found = np.asarray(reference[name]), np.asarray(values)
        if expected.shape != found.shape:
            raise QanetError(f"the engine's {name} has another shape", expected=expected.shape, got=found.shape)
    detects = {"boxes", "scores"} <= got.keys()
    likely = np.maximum(reference["scores"], got["scores"]) >= _CANDIDATE if detects else None
    for name, values in got.items():
        expected, found = np.asarray(reference[name], np.float64), np.asarray(values, np.float64)
        if detects and name in ("boxes", "scores"):
            assert likely is not None
            kind = "box" if name == "boxes" else "score"
            value = _worst_box(expected[likely], found[likely]) if kind == "box" else _worst(expected, found, likely)
        elif name == "labels":
            kind, value = "label", float((expected != found).mean())
        elif expected.ndim <= 2:
            error = np.abs(expected - found) / max(1.0, float(np.abs(expected).max(initial=0)))  # of odd graphs
            if error.ndim == 2:
                seen = (expected > 0) & (found > 0) | ~np.isfinite(found)
                error = error[seen].mean(keepdims=True) if seen.any() else np.zeros(1)
            kind, value = "score", float(error.max(initial=0))
        else:
            kind, value = "map", relative_rms(expected, found)
        differences.append(Difference(name, value, limits[kind]))
    return differences


def relative_rms(expected: NDArray[Any], got: NDArray[Any]) -> float:
    """RMS of the error over the RMS of the value; 0 for two tensors of zeros."""
    exact = expected.astype(np.float64)
    error, size = np.sqrt(np.square(got - exact).mean()), np.sqrt(np.square(exact).mean())
    return float(error / size) if size else float(error > 0)


def label_agreement(reference: Mapping[str, NDArray[Any]], got: Mapping[str, NDArray[Any]]) -> float | None:
    """Share of the foreground's pixels with equal labels, by `labels` or else the largest logit; None without either.

    The foreground is what either side does not call background.
    """
    if "labels" in reference and "labels" in got:
        first, second = np.asarray(reference["labels"]), np.asarray(got["labels"])
    elif "logits" in reference and "logits" in got:
        if np.shape(got["logits"])[1] == 1:
            return None  # of masks, which have no classes
        first, second = (np.asarray(side["logits"]).argmax(1) for side in (reference, got))
    else:
        return None
    foreground = (first > 0) | (second > 0)
    return float((first == second)[foreground].mean()) if foreground.any() else 1.0


def _worst(expected: NDArray[Any], found: NDArray[Any], where: Any) -> float:
    return float(np.abs(expected - found)[where].max(initial=0))


def _worst_box(expected: NDArray[Any], found: NDArray[Any]) -> float:
    """Largest error of a corner over the longer side of the box it belongs to."""
    side = np.maximum((expected[:, 2:] - expected[:, :2]).max(1, initial=1), 1)
    return float((np.abs(expected - found).max(1, initial=0) / side).max(initial=0))
