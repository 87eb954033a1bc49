"""Calibration of a bundle: find its INT8 scales or adopt others, write them with their graphs, search what stays float.

found = calibrate(bundle, "photographs/")  # nothing is written yet
write_scales(bundle, found.scales)  # scales.json and the INT8 graph, saved
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from qanet.bundle import NO_VNNI, Bundle
from qanet.calib.quantize import NARROW_TYPES, int8_of_this_cpu, quantise
from qanet.calib.ranges import DEFAULT_PERCENTILE
from qanet.calib.scales import Scales, find_scales, load_scales, parse_scales
from qanet.calib.search import Found, Measure, search_precision
from qanet.errors import QanetError
from qanet.files import sha256_bytes
from qanet.labels import PERSON_BOX1
from qanet.runtime.answers.ask import answers_missing
from qanet.runtime.answers.known import renew_answers
from qanet.runtime.answers.verdicts import TOLERANCES
from qanet.runtime.backends.onnxruntime import exact_outputs
from qanet.runtime.crops import people_crops
from qanet.runtime.detectors.base import WholeImage

SCALES = "scales.json"
REPORT, RECORD = "precision-search.html", "precision-search.json"


@dataclass(frozen=True)
class Calibration:
    """Scales of a bundle's FP32 graph, not yet written.

    Attributes:
        scales: the ranges.
        is_cached: whether the network had been run on these crops before.
    """

    scales: Scales
    is_cached: bool


def calibrate(
    bundle: Bundle,
    data: Path | str,
    *,
    method: str = "entropy",
    percentile: float = DEFAULT_PERCENTILE,
    crops: int = 256,
    progress: Callable[[int, int], None] | None = None,
) -> Calibration:
    """Find the INT8 ranges of a bundle's FP32 graph; nothing is written into the bundle.

    Args:
        data: a data set folder, a folder of images, or a video.
        method: one of qanet.calib.ranges.METHODS.
        percentile: per cent of values kept by method "percentile".
        crops: at most this many crops of people (of whole images for a person detector).
        progress: called with the number of crops done and expected, after each.
    Raises:
        QanetError: no people found, too few or black crops, unknown method, broken graph.
    """
    detects = bundle.labels == PERSON_BOX1  # its input is the whole image
    detector = WholeImage() if bundle.view == "whole" else None
    batches = people_crops(Path(data), bundle.input_hw, crops, detector, whole=detects, framing=bundle.crop_boxes)

    def count(done: int) -> None:
        if progress:
            progress(done, batches.expected)

    return Calibration(*find_scales(bundle.graph("fp32"), batches, method, percentile=percentile, progress=count))


def adopted_scales(bundle: Bundle, path: Path | str) -> Scales:
    """The ranges of another calibration for this bundle's FP32 graph, such as that of the network before fine-tuning.

    Nothing is written.

    Args:
        path: a scales.json.
    Raises:
        QanetError: the file names tensors or nodes that this graph lacks, or has no range for some of its tensors.
    """
    graph = bundle.graph("fp32")
    scales = dataclasses.replace(load_scales(path), model_sha256=sha256_bytes(graph))
    scales.check(graph)
    return scales


def write_scales(bundle: Bundle, scales: Scales) -> None:
    """Write scales and INT8 graph into the bundle, drop INT8 engines and accuracies of other scales, and save it."""
    bundle.add_file(SCALES, scales.to_json().encode())
    for precision in NARROW_TYPES:
        bundle.manifest["graphs"].pop(precision, None)
        bundle.manifest["accuracy"].pop(precision, None)
    for graph in dict.fromkeys(("int8", int8_of_this_cpu())):
        add_quantised_graph(bundle, graph)
    _renew_narrow_answers(bundle)
    bundle.manifest["engines"] = [e for e in bundle.engines if e["precision"] not in NARROW_TYPES]
    bundle.save()


def add_quantised_graph(bundle: Bundle, precision: str = "int8") -> None:
    """Write the graph of a key of NARROW_TYPES into a bundle, from its FP32 graph and scales.json; not saved.

    Raises:
        QanetError: no scales yet, or scales that do not fit the graph.
    """
    if SCALES not in bundle.manifest["files"]:
        raise QanetError(
            f"{bundle.path} has no scales.json, so there is no {precision.upper()}",
            expected="a calibrated bundle",
            got="FP32 only",
            next_command=f"qanet calibrate {bundle.path} --data DIR",
        )
    bundle.add_file(f"model.{precision}.onnx", quantised_graph(bundle, precision))
    bundle.manifest["graphs"][precision] = f"model.{precision}.onnx"


def quantised_graph(bundle: Bundle, precision: str) -> bytes:
    """The Q/DQ graph of a key of NARROW_TYPES, from the bundle's FP32 graph and scales.json; nothing is written."""
    return quantise(bundle.graph("fp32"), parse_scales(bundle.read(SCALES)), precision)


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
    """Search the blocks to leave in float and write the report into the bundle; scales and graph are the caller's.

    Arguments, result and errors as `qanet.calib.search.search_precision`.
    """
    from qanet.calib.plot import page  # pages are made by libraries that `qanet build` does not need

    changed, found = search_precision(
        bundle.graph("fp32"), scales, bundle.input_hw, measure, data_digest, metric, budget, threads, progress
    )
    bundle.add_file(RECORD, found.to_json().encode())
    bundle.add_file(REPORT, page(found, f"{bundle.name}: precision search").encode())
    return changed, found


def _renew_narrow_answers(bundle: Bundle) -> None:
    """Add known answers of both INT8 graphs of the scales, and of FP32 where they are missing; not saved.

    The graph for CPUs without VNNI is answered too, though it may only be written later, on a CPU that needs it.
    """
    wanted = answers_missing(bundle, ("fp32", "int8", NO_VNNI))
    graphs = {name: bundle.graph(name) if name == "fp32" else quantised_graph(bundle, name) for name in wanted}
    if graphs:
        renew_answers(bundle, graphs, exact_outputs, TOLERANCES)
