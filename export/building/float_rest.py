"""What the float layers of an INT8 engine compute in on this CPU: BF16 or FP32, whichever is measured to be faster.

BF16 in hardware is no promise: where a CPU has the instructions and not the matrix units behind them, FP32 can be the
faster rest, and OpenVINO does not tell these CPUs apart. So the graph is compiled both ways and timed in turns.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from qanet.errors import QanetError
from qanet.export.building.verify import drawn_crops
from qanet.export.engines.source_graph import load_graph
from qanet.runtime.backends.openvino import float_rest_hints, openvino_core

_MARGIN = 0.02  # by so much BF16 must be faster: FP32 is the more exact, and two builds should not differ by noise
_WARM_UP, _LEAST_ROUNDS, _MOST_ROUNDS, _SECONDS = 2, 9, 60, 3.0

Samples = dict[str, list[float]]  # hint -> milliseconds, a value a round
TimeInTurns = Callable[[Path, Sequence[str] | None, tuple[int, int], Sequence[str]], Samples]


@dataclass(frozen=True)
class FloatRest:
    """A choice and why.

    Attributes:
        hint: OpenVINO's INFERENCE_PRECISION_HINT, "bf16" or "f32".
        by: "measurement" or "option".
        least_ms: hint -> least latency of one crop; empty where nothing was measured.
        rounds: how many turns it is the least of.
    """

    hint: str
    by: str
    least_ms: dict[str, float]
    rounds: int = 0

    def to_json(self) -> dict[str, Any]:
        """For the engine's entry in the manifest."""
        document: dict[str, Any] = {"chosen": self.hint, "by": self.by}
        if self.least_ms:
            rounded = {hint: round(value, 3) for hint, value in self.least_ms.items()}
            document |= {"least_ms": rounded, "rounds": self.rounds}
        return document


def check_float_rest(asked: str) -> None:
    """QanetError where what --float-rest asks for is not to be had on this CPU."""
    if asked == "bf16" and not _hints():
        raise QanetError("this CPU has no BF16", expected="auto or f32", got=f"--float-rest {asked}")


def choose_float_rest(
    path: Path,
    outputs: Sequence[str] | None,
    input_hw: tuple[int, int],
    asked: str = "auto",
    time_in_turns: TimeInTurns | None = None,
) -> FloatRest | None:
    """The type for one INT8 graph.

    Args:
        path: the graph with Q/DQ.
        outputs: those the engine keeps, None for all.
        input_hw: crop size (H, W) pixels.
        asked: "bf16", "f32", or "auto" to measure.
        time_in_turns: measures; `time_graph` unless the times are known.
    Returns:
        None where there is nothing to choose: this CPU has no BF16, and nothing was asked for.
    Raises:
        QanetError: asked for what this CPU lacks, or OpenVINO cannot compile the graph.
    """
    check_float_rest(asked)
    if asked != "auto":
        return FloatRest(asked, "option", {})
    hints = _hints()
    if not hints:
        return None
    samples = (time_in_turns or time_graph)(path, outputs, input_hw, hints)
    least_ms = {hint: min(values) for hint, values in samples.items()}  # what else runs here can only add
    is_faster = least_ms["bf16"] < (1 - _MARGIN) * least_ms["f32"]
    return FloatRest("bf16" if is_faster else "f32", "measurement", least_ms, len(samples["f32"]))


def describe_float_rest(rest: FloatRest) -> str:
    """One line on a measured choice."""
    times = ", ".join(f"{hint} {value:.2f} ms" for hint, value in rest.least_ms.items())
    return f"what is not INT8 computes in {rest.hint} ({times}: the least of {rest.rounds} rounds in turns)"


def time_graph(path: Path, outputs: Sequence[str] | None, input_hw: tuple[int, int], hints: Sequence[str]) -> Samples:
    """Times of one crop, the graph compiled as the runtime compiles it, with each of the hints."""
    core = openvino_core()
    requests: dict[str, Any] = {}
    try:
        model = core.read_model(load_graph(path, outputs).SerializeToString())
        for hint in hints:
            config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": hint}
            requests[hint] = core.compile_model(model, "CPU", config).create_infer_request()
    except RuntimeError as error:
        raise QanetError(f"OpenVINO cannot compile {path.name}", got=str(error)[-600:]) from error
    names = {port.get_any_name() for port in model.inputs}
    feed = {"crops": drawn_crops(1, input_hw), "box_scores": np.ones(1, np.float32)}
    feed = {name: values for name, values in feed.items() if name in names}
    calls = {hint: partial(request.infer, feed, share_inputs=True) for hint, request in requests.items()}
    return samples_in_turns(calls)


def samples_in_turns(
    calls: Mapping[str, Callable[[], Any]], clock: Callable[[], float] = time.perf_counter, seconds: float = _SECONDS
) -> Samples:
    """Milliseconds of each call, round after round, every second round in reverse: whatever else the machine does, and
    however its clock rate drifts, meets all alike.

    Args:
        calls: name -> what to time.
        clock: seconds.
        seconds: of rounds, after which no other begins; but never fewer than nine, nor more than sixty.
    """
    for _ in range(_WARM_UP):
        for call in calls.values():
            call()
    samples: Samples = {name: [] for name in calls}
    begin = clock()
    for number in range(_MOST_ROUNDS):
        if number >= _LEAST_ROUNDS and clock() - begin >= seconds:
            break
        for name in list(calls)[:: -1 if number % 2 else 1]:
            start = clock()
            calls[name]()
            samples[name].append((clock() - start) * 1e3)
    return samples


def _hints() -> tuple[str, ...]:
    """`float_rest_hints` of this CPU; QanetError without OpenVINO."""
    try:
        return float_rest_hints(openvino_core())
    except ImportError as error:
        raise QanetError("OpenVINO is not installed", got=str(error), next_command="pip install openvino") from error
