"""The interface of an engine, the same for every backend."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pickle import PicklingError
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

KERNEL_TAIL_OUTPUTS = ("logits", "iou_scores")
GRAPH_TAIL_OUTPUTS = ("labels", "pixel_scores", "part_scores", "iou_scores", "quality", "part_quality")

Outputs = dict[str, NDArray]


def has_tail(outputs: Sequence[str] | None) -> bool:
    """Whether a graph cut to these outputs (None: all) computes more than the logits and the IoU scores."""
    return outputs is None or not set(outputs) <= set(KERNEL_TAIL_OUTPUTS)


@dataclass(frozen=True)
class Origin:
    """The graph or file that an engine was made of, and the machine it was made for.

    Attributes:
        graph: the bundle's graph, by its key in the manifest: "fp32", "fp16", "int8", "int8-no-vnni", ...
        sha256: of the file that was compiled or loaded; of several, joined.
        version: of the runtime.
        device: the CPU by its number types, or the GPU and its driver.
        computes_in: type of float layers: "fp32", "fp16" or "bf16"; "" where the runtime does not report it.
    """

    graph: str
    sha256: str
    version: str
    device: str
    computes_in: str = ""


class Engine(Protocol):
    """A loaded network. Threads may share it: their calls take turns, or run beside each other."""

    runtime: str  # "openvino", "tensorrt", ...
    precision: str  # "fp32", "fp16", "int8"
    outputs: tuple[str, ...]
    opened_by: tuple[Callable[..., Any], tuple[Any, ...]] | None  # see `Reopened`

    def run(self, crops: NDArray[np.uint8], box_scores: NDArray[np.float32]) -> Outputs:
        """Run one batch.

        Args:
            crops: (N, H, W, 3) uint8 BGR, N of 1 or more.
            box_scores: (N,) float32.
        Returns:
            The engine's outputs by name, owned by the caller.
        """
        ...


class Reopened:
    """The base of engines, which pickle as what opened them: the process that unpickles one opens its own.

    Attributes:
        opened_by: a function and its arguments; None for an engine that was made of a graph's or a file's bytes.
    """

    opened_by: tuple[Callable[..., Any], tuple[Any, ...]] | None = None

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        if self.opened_by is None:
            raise PicklingError("an engine of bare bytes cannot be pickled: pickle one that a bundle gave")
        return self.opened_by


def graph_name(engine: Engine) -> str:
    """The key of the bundle's graph that an engine was made of; its precision where the engine has no origin."""
    origin: Origin | None = getattr(engine, "origin", None)
    return origin.graph if origin else engine.precision
