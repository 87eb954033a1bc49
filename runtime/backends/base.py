"""What the parser asks of an engine, whatever runs it."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

KERNEL_TAIL_OUTPUTS = ("logits", "iou_scores")
GRAPH_TAIL_OUTPUTS = ("labels", "pixel_scores", "part_scores", "iou_scores", "quality", "part_quality")

Outputs = dict[str, NDArray]


@dataclass(frozen=True)
class Origin:
    """What an engine was made of and for: enough to know it again, and to know whose answers it must give.

    Attributes:
        graph: the bundle's graph, by its key in the manifest: "fp32", "fp16", "int8", "int8-no-vnni", ...
        sha256: of the file that was compiled or loaded; of several, joined.
        version: of the runtime.
        device: the CPU by its number types, or the GPU and its driver.
        computes_in: what floating point computes in: "fp32", "fp16" or "bf16"; "" where the runtime does not tell.
    """

    graph: str
    sha256: str
    version: str
    device: str
    computes_in: str = ""


class Engine(Protocol):
    """A loaded network. Not safe across threads: one engine a thread."""

    runtime: str  # "openvino", "tensorrt", ...
    precision: str  # "fp32", "fp16", "int8"
    outputs: tuple[str, ...]

    def run(self, crops: NDArray[np.uint8], box_scores: NDArray[np.float32]) -> Outputs:
        """One batch through the network.

        Args:
            crops: (N, H, W, 3) uint8 BGR, N of 1 or more.
            box_scores: (N,) float32.
        Returns:
            The engine's outputs by name, owned by the caller.
        """
        ...


def graph_name(engine: Engine) -> str:
    """The key of the bundle's graph that an engine was made of; its precision where it does not say."""
    origin: Origin | None = getattr(engine, "origin", None)
    return origin.graph if origin else engine.precision
