"""The search for blocks that must stay in float: the drop of a task metric against the milliseconds that INT8 saves.

1. Each block is quantised alone, once, and the metric measured: its sensitivity, the drop from the network whose
   blocks are all in the 16-bit type that INT8 graphs leave the rest in. Every measurement is kept under a name
   made of the weights, the ranges, the data and the choice of blocks, so that another budget or metric, or a run after
   a stopped one, measures only what is new.
2. OpenVINO's counters give what each block costs in INT8 and in the 16-bit type of this CPU.
3. Blocks that INT8 does not make faster stay in float. The others are ordered by drop per millisecond saved, the worst
   first, and the shortest beginning of that order that brings the whole network within the budget stays in float;
   that is measured, not summed up from step 1, because errors of blocks cancel and compound.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from qanet.calib.latency import block_latency_ms
from qanet.calib.observe import cache_folder, cache_key, store
from qanet.calib.placement import blocks_of, load_model, present_patterns
from qanet.calib.quantize import insert_qdq, int8_of_this_cpu
from qanet.calib.scales import Scales
from qanet.errors import QanetError

METRICS = {"miou": "mIoU", "ap_r": "AP^r", "rank_correlation": "rank correlation of Q with the true IoU"}
Accuracy = dict[str, float]  # metric -> value x 100
Measure = Callable[[bytes, str], Accuracy]  # (ONNX graph, its precision) -> metrics x 100
HEADER = ("block", "drop", "float ms", "INT8 ms", "saved ms", "chosen")


@dataclass(frozen=True)
class BlockCost:
    """Cost and gain of quantising one block.

    Attributes:
        drop: of the metric (x 100) when this block alone is INT8; negative where it rose.
        float_ms, int8_ms: of the block in one crop's inference.
        in_float: whether the search left it in float.
    """

    name: str
    drop: float
    float_ms: float
    int8_ms: float
    in_float: bool = False

    @property
    def saved_ms(self) -> float:
        return self.float_ms - self.int8_ms


@dataclass(frozen=True)
class Found:
    """The result of a search; accuracies are x 100.

    Attributes:
        metric: one of METRICS.
        budget: the drop allowed.
        in_float: blocks left in float, in graph order.
        fp32, all_int8, chosen: accuracies of FP32, of every block in INT8, and of the choice.
        blocks: in graph order.
    """

    metric: str
    budget: float
    in_float: tuple[str, ...]
    fp32: Accuracy
    all_int8: Accuracy
    chosen: Accuracy
    blocks: tuple[BlockCost, ...]

    def to_json(self) -> str:
        """A document for the bundle."""
        return json.dumps(asdict(self), indent=1) + "\n"


def search_precision(
    graph: bytes,
    scales: Scales,
    input_hw: tuple[int, int],
    measure: Measure,
    data_digest: str,
    metric: str,
    budget: float,
    threads: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> tuple[Scales, Found]:
    """Find the blocks to leave in float.

    Args:
        graph: contents of the FP32 ONNX file.
        scales: of that graph, with ranges of everything that may be quantised.
        input_hw: crop size (H, W) pixels.
        measure: accuracy of a graph on the task's images.
        data_digest: names those images.
        metric: one of METRICS.
        budget: the drop allowed, x 100.
        threads: CPU threads of the latency measurement; None leaves the choice to OpenVINO.
        progress: called with the name of each block that was measured.
    Returns:
        The scales with `keep` as found, and the search's record.
    Raises:
        QanetError: the metric is undefined on the images, or no choice is within the budget.
    """
    if metric not in METRICS:
        raise QanetError(f"unknown metric {metric!r}; choose from {', '.join(METRICS)}")
    model = load_model(graph)
    dataclasses.replace(scales, keep=()).check_complete(model)
    blocks = blocks_of(model)
    name = cache_key("accuracy", scales.model_sha256, [(k, r.amax) for k, r in scales.ranges.items()], data_digest)

    def quantised(in_float: Sequence[str]) -> bytes:
        kept = dataclasses.replace(scales, keep=present_patterns(model, in_float))
        made = insert_qdq(model, kept, int8_of_this_cpu())  # the graph that this CPU computes without saturation
        return bytes(made.SerializeToString(deterministic=True))

    def graph_of(in_float: Sequence[str] | None) -> tuple[bytes, str]:
        if in_float is None:
            return graph, "fp32"
        return (graph, "bf16") if len(in_float) == len(blocks) else (quantised(in_float), "int8")

    accuracy = Measurements(cache_folder() / f"{name}.json", blocks, lambda kept: measure(*graph_of(kept)))
    if not math.isfinite(accuracy.fp32()[metric]):
        raise QanetError(f"{METRICS[metric]} is undefined on these images", next_command="give more or other --images")
    drops = sensitivities(blocks, accuracy, metric, progress)
    graphs = {"float": (graph, "bf16"), "int8": (quantised(()), "int8")}
    ms = block_latency_ms(graphs, blocks, input_hw, threads=threads)
    costs = [BlockCost(block, drops[block], ms["float"][block], ms["int8"][block]) for block in blocks]
    found = choose(costs, accuracy, accuracy.fp32(), metric, budget)
    return dataclasses.replace(scales, keep=present_patterns(model, found.in_float)), found


class Measurements:
    """Accuracies by the set of blocks in float, measured at the first use and kept in a file."""

    def __init__(self, path: Path, blocks: Sequence[str], measure: Callable[[tuple[str, ...] | None], Accuracy]):
        """measure: blocks in float, or None for FP32 -> accuracy."""
        self._path, self._blocks, self._measure = path, tuple(blocks), measure
        self.measured = 0
        try:
            self._known: dict[str, Accuracy] = dict(json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            self._known = {}

    def fp32(self) -> Accuracy:
        """Of the network in FP32, from beginning to end."""
        return self._of("fp32", None)

    def __call__(self, in_float: Sequence[str]) -> Accuracy:
        ordered = tuple(block for block in self._blocks if block in set(in_float))
        return self._of(" ".join(ordered), ordered)

    def _of(self, key: str, in_float: tuple[str, ...] | None) -> Accuracy:
        if key not in self._known:
            self._known[key] = self._measure(in_float)
            self.measured += 1
            store(self._path, json.dumps(self._known, indent=1).encode())
        return self._known[key]


def sensitivities(
    blocks: Sequence[str],
    accuracy: Callable[[Sequence[str]], Accuracy],
    metric: str,
    progress: Callable[[str], None] | None = None,
) -> dict[str, float]:
    """Block -> drop of the metric (x 100) against all blocks in float when it alone is INT8."""
    whole = accuracy(blocks)
    drops = {}
    for block in blocks:
        drops[block] = whole[metric] - accuracy([other for other in blocks if other != block])[metric]
        if progress:
            progress(block)
    return drops


def choose(
    costs: Sequence[BlockCost],
    accuracy: Callable[[Sequence[str]], Accuracy],
    fp32: Accuracy,
    metric: str,
    budget: float,
) -> Found:
    """The fewest blocks in float, in the order of the module's docstring, that keep the drop within the budget.

    Args:
        costs: in graph order.
        accuracy: blocks in float -> accuracy of the network.
        fp32: what the drop is counted from.
    Raises:
        QanetError: every choice that leaves anything in INT8 drops more than the budget.
    """
    names = [cost.name for cost in costs]
    all_int8 = accuracy([])
    free = [cost.name for cost in costs if cost.saved_ms <= 0]
    ranked = sorted((cost for cost in costs if cost.saved_ms > 0), key=_harm, reverse=True)
    order = [cost.name for cost in ranked]

    def drop(count: int) -> float:
        return fp32[metric] - accuracy([*free, *order[:count]])[metric]

    low, high = 0, len(order) - 1  # of order[:count] in float; all of them would be FP32
    if high < 0 or (drop(low) > budget and drop(high) > budget):
        raise QanetError(
            f"no choice of blocks keeps the drop of {METRICS[metric]} within the budget",
            expected=f"at most {budget:g}",
            got=f"{drop(high):.2f} with one block in INT8" if order else "no block that INT8 makes faster",
            next_command="a larger --budget, another --method, or fine-tune with fake quantisation: qanet qat",
        )
    if drop(low) <= budget:
        high = low
    while high - low > 1:  # drop(low) is too much, drop(high) is not
        middle = (low + high) // 2
        low, high = (low, middle) if drop(middle) <= budget else (middle, high)
    chosen = {*free, *order[:high]}
    in_float = tuple(name for name in names if name in chosen)
    marked = tuple(BlockCost(**{**asdict(cost), "in_float": cost.name in chosen}) for cost in costs)
    return Found(metric, budget, in_float, fp32, all_int8, accuracy(in_float), marked)


def _harm(cost: BlockCost) -> tuple[float, float]:
    """Sort key: drop per millisecond; of blocks without a drop, those that save least come first."""
    return (max(cost.drop, 0.0) / cost.saved_ms, -cost.saved_ms)


def rows(found: Found) -> list[tuple[Any, ...]]:
    """A table's rows, with the columns of HEADER."""
    return [
        (
            c.name,
            f"{c.drop:+.2f}",
            f"{c.float_ms:.3f}",
            f"{c.int8_ms:.3f}",
            f"{c.saved_ms:+.3f}",
            "float" if c.in_float else "INT8",
        )
        for c in found.blocks
    ]
