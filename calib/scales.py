"""The record of a calibration, and its file `scales.json`: readable, editable by hand, checked when it is loaded.

One line a tensor, in graph order: `"backbone.stem.relu6": {"amax": 6.0, "by": "entropy", "largest": 6.0}`. To
override a range edit its amax (and say so in `by`); to leave a layer in float add its node's name to `keep`, to
quantise it take the name away: the ranges of both cases are there. The edited file takes effect by
`qanet calibrate NAME.qanet --scales FILE`. `largest` lists the largest magnitude of every
activation that is never quantised; an FP16 graph keeps FP32 where one of them comes near FP16's end.
"""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qanet.calib.graph import GraphView, file_sha256, load_model
from qanet.calib.placement import place
from qanet.errors import QanetError

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
        data_sha256: of the calibration data, as the caller defines it; may be empty.
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

    def save(self, path: str | Path) -> None:
        """Write scales.json."""
        Path(path).write_text(self.to_json())

    def check(self, model_path: str | Path) -> Any:
        """Check the record against the graph it is used on.

        Returns:
            the loaded onnx.ModelProto.
        Raises:
            QanetError: another model, a tensor that the graph has not, or a tensor that is missing here.
        """
        model = load_model(model_path)
        got = file_sha256(model_path)
        if got != self.model_sha256:
            raise QanetError(
                f"the scales were made for another model than {model_path}",
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


def load_scales(path: str | Path, model_path: str | Path | None = None) -> Scales:
    """Read scales.json; where the FP32 ONNX is given, check the record against it.

    Raises:
        QanetError: unreadable or incomplete file, another schema, an amax that is not positive and finite, and all
            that `Scales.check` refuses.
    """
    path = Path(path)
    try:
        document = json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise QanetError(f"cannot read {path}", expected="scales.json", got=error, next_command=_AGAIN) from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        got = document.get("schema") if isinstance(document, dict) else type(document).__name__
        raise QanetError(f"{path} has another schema", expected=SCHEMA, got=got, next_command=_AGAIN)
    scales = _parse(document, path)
    if model_path is not None:
        scales.check(model_path)
    return scales


def _parse(document: dict[str, Any], path: Path) -> Scales:
    """The record of a document of the right schema; every field must be there and of its type."""
    fields = {"method": str, "crops": int, "model_sha256": str, "data_sha256": str, "keep": list, "tensors": dict}
    for name, kind in fields.items():
        if not isinstance(document.get(name), kind):
            raise QanetError(f"{path}: field {name!r}", expected=kind.__name__, got=document.get(name, "nothing"))
    ranges = {name: _parse_range(name, entry) for name, entry in document["tensors"].items()}
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
    """Of a file without them, which older versions wrote: none."""
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
