"""What every builder hands back: the engine's bytes and what is true of them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from qanet.export.engines.census import Census

Report = Callable[[str], None]  # called with one line at each step of a build


@dataclass(frozen=True)
class BuiltEngine:
    """An engine in memory and the facts a manifest needs about it.

    Attributes:
        data: the engine file's bytes.
        runtime: "tensorrt", "tensorrt-rtx" or "openvino".
        version: version of the library that built it, as the library says it.
        targets: what it runs on: "sm_86" and the like, or "cpu-" and an architecture.
        census: the precision of its layers.
        seconds: wall-clock time of parsing and building.
        messages: warnings and errors of the library, and what was asked but not delivered; each once.
        inputs: names of the inputs the engine kept; one that no kept output needs is gone.
        outputs: names of the outputs, in the graph's order or the order asked for.
        options: properties the loader must set to get this precision again, by the runtime's own names.
        batches: (min, opt, max) batch of each optimisation profile; none for OpenVINO, which takes any.
        stripped: the weights are left out and must be put back before it runs.
        float_rest: how the type of what is not INT8 was chosen, for the manifest; empty where there was no choice.
        requires: what the library itself says the data needs, its version and an instruction set; "" if nothing.
    """

    data: bytes = field(repr=False)
    runtime: str
    version: str
    targets: tuple[str, ...]
    census: Census
    seconds: float
    messages: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    options: dict[str, str] = field(default_factory=dict)
    batches: tuple[tuple[int, int, int], ...] = ()
    stripped: bool = False
    float_rest: dict[str, Any] = field(default_factory=dict)
    requires: str = ""
