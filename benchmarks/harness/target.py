"""Something to time, and the target that does nothing: its figures are the harness's own."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """Something to time.

    Attributes:
        name: unique among the targets.
        call: called with the round's number, so that all targets of a round work on the same sample.
        kind: "engine", "tail", "parser", "pipeline", "baseline", "anchor" or "null".
        precision: "fp32", "fp16", "int8"; "" where none is involved.
        runtime: "openvino", ...; "" where none is involved.
        batch: people a call (frames a call for "pipeline"); a mean where it varies.
        started: called once when the timed rounds begin, to drop what the warm-up left behind.
        variant: the label of the model, precision, tail and device it belongs to; "" for none.
    """

    name: str
    call: Callable[[int], object]
    kind: str
    precision: str = ""
    runtime: str = ""
    batch: float = 1.0
    started: Callable[[], None] = lambda: None
    variant: str = ""


def null_target() -> Target:
    """A call that does nothing: what the harness adds to every sample."""
    return Target("null (harness itself)", lambda number: None, "null")
