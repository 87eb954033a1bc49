"""The record of a calibration, and its file `scales.json`: readable, editable by hand, checked when it is loaded.

One line a tensor, in graph order: `"backbone.stem.relu6": {"amax": 6.0, "by": "entropy", "largest": 6.0}`. To
override a range edit its amax (and say so in `by`); to leave a layer in float add its node's name to `keep`, to
quantise it take the name away: the ranges of both cases are there. The edited file takes effect by
`qanet calibrate NAME.qanet --scales FILE`. `largest` lists the largest magnitude of every
activation that is never quantised; an FP16 graph keeps FP32 where one of them comes near FP16's end.
"""

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qanet.calib.observe import (
    Crop,
    CropSpool,
    Observations,
    cache_key,
    cached_observations,
    crop_shape,
    each_crop,
    observe,
)
from qanet.calib.placement import DEFAULT_KEEP, GraphView, load_model, place
from qanet.calib.ranges import DEFAULT_PERCENTILE, Histogram, check_method, find_range
from qanet.errors import QanetError
from qanet.files import sha256_bytes

SCHEMA = 1
_AGAIN = "qanet calibrate NAME.qanet --data DIR"


@dataclass(frozen=True)
class Range:
    """One activation: amax in the tensor's units, what produced it, and the largest magnitude that was seen."""

    amax: float
    by: str
    largest: float


@dataclass(frozen=True)
class Scales:
    """Ranges of every quantised activation of one FP32 graph.

    Attributes:
        method: one of qanet.calib.ranges.METHODS, with the percentile where it has one: "percentile 99.99".
        crops: number of crops that were seen.
        model_sha256: of the FP32 ONNX file.
        data_sha256: of the pixels of the crops.
        keep: patterns of node names left in float.
        ranges: tensor name -> Range, in graph order; also of what `keep` leaves in float.
        largest: tensor name -> largest magnitude seen, of the network's other float activations.
    """

    method: str
    crops: int
    model_sha256: str
    data_sha256: str
    keep: tuple[str, ...]
    ranges: dict[str, Range]
    largest: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> str:
        """The text of scales.json: one line a tensor, ending in a newline; the same record gives the same bytes."""
        head = {
            "schema": SCHEMA,
            "method": self.method,
            "crops": self.crops,
            "model_sha256": self.model_sha256,
            "data_sha256": self.data_sha256,
            "keep": list(self.keep),
        }
        lines = [f"  {json.dumps(key)}: {json.dumps(value)}," for key, value in head.items()]
        tensors = [
            f"    {json.dumps(name)}: {json.dumps({'amax': r.amax, 'by': r.by, 'largest': r.largest})}"
            for name, r in self.ranges.items()
        ]
        peaks = [f"    {json.dumps(name)}: {json.dumps(value)}" for name, value in self.largest.items()]
        body = [
            '  "tensors": {',
            ",\n".join(tensors),
            "  },",
            '  "largest": {',
            *([",\n".join(peaks)] if peaks else ()),
            "  }",
        ]
        return "\n".join(["{", *lines, *body, "}"]) + "\n"

    def check(self, graph: bytes) -> Any:
        """Check the record against the graph it is used on.

        Args:
            graph: contents of the FP32 ONNX file.
        Returns:
            The graph as an onnx.ModelProto of `load_model`.
        Raises:
            QanetError: broken ONNX, another graph, a tensor that the graph lacks, or a range that is missing here.
        """
        model = load_model(graph)
        got = sha256_bytes(graph)
        if got != self.model_sha256:
            raise QanetError(
                "the scales were made for another FP32 graph",
                expected=f"sha256 {self.model_sha256}",
                got=got,
                next_command=_AGAIN,
            )
        tensors = GraphView.of(model.graph).tensors()
        unknown = [name for name in self.ranges if name not in tensors]
        if unknown:
            raise QanetError(f"scales: tensor {unknown[0]!r} is not in the graph", got=f"{len(unknown)} such names")
        self.check_complete(model)
        return model

    def check_complete(self, model: Any) -> None:
        """Raise QanetError naming the first activation of `place(model, keep)` that has no range."""
        missing = [name for name in place(model, self.keep).observed() if name not in self.ranges]
        if missing:
            raise QanetError(
                f"scales: no range for tensor {missing[0]!r}",
                expected="one for every quantised activation",
                got=f"{len(missing)} missing",
                next_command=_AGAIN,
            )


def load_scales(path: str | Path) -> Scales:
    """Read a file by `parse_scales`; QanetError where it cannot be read."""
    try:
        return parse_scales(Path(path).read_bytes(), str(path))
    except OSError as error:
        raise QanetError(f"cannot read {path}", expected="scales.json", got=error, next_command=_AGAIN) from error


def parse_scales(data: bytes, name: str = "scales.json") -> Scales:
    """The record in the contents of a scales.json.

    Args:
        name: of the file, for errors.
    Raises:
        QanetError: not JSON or incomplete, another schema, or an amax that is not positive and finite.
    """
    try:
        document = json.loads(data)
    except ValueError as error:  # not UTF-8, or not JSON
        raise QanetError(f"cannot read {name}", expected="scales.json", got=error, next_command=_AGAIN) from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        got = document.get("schema") if isinstance(document, dict) else type(document).__name__
        raise QanetError(f"{name} has another schema", expected=SCHEMA, got=got, next_command=_AGAIN)
    fields = {"method": str, "crops": int, "model_sha256": str, "data_sha256": str, "keep": list, "tensors": dict}
    for field_name, kind in fields.items():
        if not isinstance(document.get(field_name), kind):
            raise QanetError(
                f"{name}: field {field_name!r}", expected=kind.__name__, got=document.get(field_name, "nothing")
            )
    ranges = {tensor: _parse_range(tensor, entry) for tensor, entry in document["tensors"].items()}
    return Scales(
        document["method"],
        document["crops"],
        document["model_sha256"],
        document["data_sha256"],
        tuple(str(pattern) for pattern in document["keep"]),
        ranges,
        _parse_largest(document.get("largest", {})),
    )


def _parse_largest(entries: Any) -> dict[str, float]:
    """The largest magnitudes; empty for a file without them, as older versions wrote it."""
    if not isinstance(entries, dict):
        raise QanetError("scales: field 'largest'", expected="dict", got=type(entries).__name__)
    for name, value in entries.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
            raise QanetError(f"scales: the largest value of tensor {name!r}", expected="a number from 0 on", got=value)
    return {name: float(value) for name, value in entries.items()}


def _parse_range(name: str, entry: Any) -> Range:
    amax = entry.get("amax") if isinstance(entry, dict) else entry
    if isinstance(amax, bool) or not isinstance(amax, int | float) or not math.isfinite(amax) or amax <= 0:
        raise QanetError(f"scales: the amax of tensor {name!r}", expected="a positive finite number", got=amax)
    if not isinstance(entry, dict):
        return Range(float(amax), "hand", float(amax))
    return Range(float(amax), str(entry.get("by", "hand")), float(entry.get("largest", amax)))


def find_scales(
    graph: bytes,
    batches: Iterable[Crop],
    method: str = "entropy",
    *,
    keep: tuple[str, ...] = DEFAULT_KEEP,
    percentile: float = DEFAULT_PERCENTILE,
    threads: int = 0,
    use_cache: bool = True,
    progress: Callable[[int], None] | None = None,
) -> tuple[Scales, bool]:
    """Find the range of every activation that may be quantised.

    Crops are read in any case, since their pixels are part of the name in the cache; the network runs only on crops
    that are not cached.

    Args:
        graph: contents of an FP32 ONNX file with one uint8 input (N, H, W, 3) in front of its convolutions.
        batches: uint8 arrays (B, H, W, 3), read once; B may vary and does not matter.
        method: one of qanet.calib.ranges.METHODS.
        keep: patterns of node names to leave in float.
        percentile: per cent of values kept by method "percentile".
        threads: of ONNX Runtime, 0 for all cores.
        use_cache: False runs the network in any case and stores nothing.
        progress: called with the number of crops done, after each; not called for cached results.
    Returns:
        The scales, and whether their observations came from the cache.
    Raises:
        QanetError: unknown method, broken ONNX, no crops, crops of a wrong shape or dtype, crops that are all black,
            an activation that is NaN, infinite, or zero throughout where it is quantised.
    """
    import onnxruntime

    check_method(method, percentile)
    model = load_model(graph)
    place(model, keep)  # refuses a pattern that matches nothing before an hour is spent
    model_sha256 = sha256_bytes(graph)
    with CropSpool(each_crop(batches, crop_shape(model))) as crops:
        key = cache_key("observations", model_sha256, crops.digest, onnxruntime.__version__)
        if use_cache:
            seen, is_cached = cached_observations(key, lambda: observe(model, crops, threads, progress))
        else:
            seen, is_cached = observe(model, crops, threads, progress), False
        return _scales_of(model, model_sha256, seen, method, keep, percentile, crops.digest), is_cached


def _scales_of(
    model: Any,
    model_sha256: str,
    seen: Observations,
    method: str,
    keep: tuple[str, ...],
    percentile: float,
    data_sha256: str,
) -> Scales:
    """Ranges by a method, for every activation that may be quantised, so that `keep` can be edited both ways."""
    if seen.crops < 2:
        raise QanetError(
            "too few crops to calibrate on",
            expected="a few hundred of different people",
            got=seen.crops,
            next_command=_AGAIN,
        )
    if seen.is_black:
        raise QanetError(
            f"all {seen.crops} crops are black",
            expected="photographs of people",
            got="every pixel 0",
            next_command="check the boxes: a box outside its image gives a black crop",
        )
    by = f"percentile {percentile:g}" if method == "percentile" else method
    needed = set(place(model, keep).observed())
    ranges = {}
    for name, histogram in seen.histograms.items():
        amax = find_range(histogram, method, percentile=percentile)
        if amax > 0:
            ranges[name] = Range(amax, by, histogram.largest)
        elif name in needed:
            raise _always_zero(name, histogram)
    return Scales(by, seen.crops, model_sha256, data_sha256, tuple(keep), ranges, dict(seen.largest))


def _always_zero(name: str, histogram: Histogram) -> QanetError:
    return QanetError(
        f"calibration: tensor {name!r} is zero for every crop",
        expected="a range above zero",
        got=histogram.largest,
        next_command="use more varied crops, or keep the layers that read it in float",
    )
