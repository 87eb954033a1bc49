"""Quality-aware human parsing on the edge (QANet, arXiv 2103.05997).

    parser = qanet.load("ccp13-lite0")
    people = parser("street.jpg")
    people.save("out.png")

Importing this package imports nothing else of it and no library; they load when they are used.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qanet._version import __version__
from qanet.errors import QanetError

if TYPE_CHECKING:
    from qanet.model import Model
    from qanet.results import People, Person
    from qanet.runtime.detectors.base import Detector
    from qanet.runtime.parser import Parser

__all__ = ["Model", "Parser", "People", "Person", "QanetError", "__version__", "load"]
_HOMES = {
    "Model": "qanet.model",
    "Parser": "qanet.runtime.parser",
    "People": "qanet.results",
    "Person": "qanet.results",
}


def load(
    name_or_path: "str | Path" = "ccp13-lite0",
    *,
    device: str = "auto",
    precision: str = "auto",
    tail: str = "kernel",
    detector: "Detector | str | None" = None,
    threads: int | None = None,
    flip: bool = False,
    scales: Sequence[float] = (1.0,),
) -> "Parser":
    """Load a model and return a parser of images and videos; see `qanet.runtime.parser.load`.

    Args:
        name_or_path: "balanced" or "accurate", a shipped model's name, or a NAME.qanet folder.
        device: "auto" (a GPU where TensorRT is installed, else the CPU), "cpu", "onnxruntime" or "cuda".
        precision: "fp32", "fp16", "int8", or "auto": the fastest engine that answers rightly on this machine.
        tail: "kernel" (labels and scores at image resolution) or "graph" (at crop resolution, inside the network).
        detector: finds the people where a call gives no boxes: a detector, its name or file, or None for person-lite0.
        threads: CPU threads of the network; None leaves the choice to the runtime.
        flip: parse each crop's mirror image too and average the two; twice the network's time.
        scales: factors of the crop box to parse and average.
    Returns:
        A `Parser`: call it with an image or a list of images, or iterate `parser.video(source)`.
    Raises:
        QanetError: no such model, device or precision.

    >>> import numpy as np
    >>> parser = load("ccp13-lite0", device="cpu", precision="fp32")
    >>> people = parser(np.zeros((64, 64, 3), np.uint8), boxes=[])
    >>> len(people)
    0
    """
    from qanet.runtime.parser import load as load_parser

    return load_parser(
        name_or_path,
        device=device,
        precision=precision,
        tail=tail,
        detector=detector,
        threads=threads,
        flip=flip,
        scales=scales,
    )


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
