"""The precision search on a bundle: graphs of every choice, their accuracy and latency, the outcome written back."""

import dataclasses
import math
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from qanet.bundle import Bundle
from qanet.calib.blocks import blocks_of, present_patterns
from qanet.calib.cache import cache_folder, cache_key
from qanet.calib.graph import load_model
from qanet.calib.latency import block_latency_ms
from qanet.calib.plot import page
from qanet.calib.quantize import insert_qdq, int8_of_this_cpu
from qanet.calib.scales import Scales
from qanet.calib.search import METRICS, Accuracy, BlockCost, Found, Measurements, choose, sensitivities
from qanet.errors import QanetError

Measure = Callable[[bytes, str], Accuracy]  # (ONNX graph, its precision) -> metrics x 100
REPORT, RECORD = "precision-search.html", "precision-search.json"


def search_bundle(
    bundle: Bundle,
    scales: Scales,
    measure: Measure,
    data_digest: str,
    metric: str,
    budget: float,
    threads: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> tuple[Scales, Found]:
    """Find the blocks to leave in float and write the report into the bundle; scales and graph are the caller's.

    Args:
        scales: of the bundle's FP32 graph, with ranges of all that may be quantised.
        measure: accuracy of a graph on the task's images.
        data_digest: names those images.
        metric: one of METRICS.
        budget: the drop allowed, x 100.
    Returns:
        The scales with `keep` as found, and the search's record.
    Raises:
        QanetError: the metric is undefined on the images, or no choice is within the budget.
    """
    if metric not in METRICS:
        raise QanetError("unknown metric", expected=f"one of {', '.join(METRICS)}", got=metric)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(bundle.graph("fp32"))
        model = load_model(path)
    blocks = _with_ranges(model, scales)
    name = cache_key("accuracy", scales.model_sha256, [(k, r.amax) for k, r in scales.ranges.items()], data_digest)

    fp32 = bundle.graph("fp32")

    def graph_of(in_float: Sequence[str] | None) -> tuple[bytes, str]:
        if in_float is None:
            return fp32, "fp32"
        return (fp32, "bf16") if len(in_float) == len(blocks) else (_graph(model, scales, in_float), "int8")

    accuracy = Measurements(cache_folder() / f"{name}.json", blocks, lambda kept: measure(*graph_of(kept)))
    if not math.isfinite(accuracy.fp32()[metric]):
        raise QanetError(f"{METRICS[metric]} is undefined on these images", next_command="give more or other --images")
    drops = sensitivities(blocks, accuracy, metric, progress)
    graphs = {"float": (fp32, "bf16"), "int8": (_graph(model, scales, ()), "int8")}
    ms = block_latency_ms(graphs, blocks, bundle.input_hw, threads=threads)
    costs = [BlockCost(block, drops[block], ms["float"][block], ms["int8"][block]) for block in blocks]
    found = choose(costs, accuracy, accuracy.fp32(), metric, budget)
    bundle.add_file(RECORD, found.to_json().encode())
    bundle.add_file(REPORT, page(found, f"{bundle.name}: precision search").encode())
    return dataclasses.replace(scales, keep=present_patterns(model, found.in_float)), found


def _with_ranges(model: Any, scales: Scales) -> tuple[str, ...]:
    """The blocks; QanetError where the scales know only some of them."""
    dataclasses.replace(scales, keep=()).check_complete(model)
    return blocks_of(model)


def _graph(model: Any, scales: Scales, in_float: Sequence[str]) -> bytes:
    kept = dataclasses.replace(scales, keep=present_patterns(model, in_float))
    quantised = insert_qdq(model, kept, int8_of_this_cpu())  # what is measured here must be right here
    return bytes(quantised.SerializeToString(deterministic=True))
