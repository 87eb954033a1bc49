"""Runs crops through the FP32 graph: a histogram of every activation that may be quantised, and the largest magnitude
of every other float activation of the network. Results are cached by content.

ONNX Runtime runs the part of the graph that those activations need. Crops are run one by one however they were batched:
the result then depends on the crops alone, and memory on one crop's activations (about 100 MB at 384x288).

The name in the cache is made of the graph's bytes, the crops' pixels and ONNX Runtime's version. The pixels are those
after cropping and resampling, so that a change of that preprocessing changes the name; the normalisation is in the
graph. Histograms serve every method and every choice of layers that stay in float, and ranges are found from them in
about a second. The cache is $XDG_CACHE_HOME/qanet/calibration (~/.cache without it); deleting it costs time only.
"""

import hashlib
import io
import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.calib.placement import GraphView, place
from qanet.calib.ranges import Histogram
from qanet.errors import QanetError
from qanet.files import write_bytes

Crop = NDArray[np.uint8]
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_VERSION = 1  # raised when the observations change
_IN_MEMORY_BYTES = 64 << 20  # about 200 crops of 384x288; more go to a file


@dataclass(frozen=True)
class Observations:
    """Statistics of a graph's activations over some crops.

    Attributes:
        crops: number of crops.
        is_black: whether every pixel of every crop was 0.
        histograms: of |x|, of the activations that may be quantised, in graph order.
        largest: the largest |x| of the network's other float activations, in graph order.
    """

    crops: int
    is_black: bool
    histograms: dict[str, Histogram]
    largest: dict[str, float]

    def to_bytes(self) -> bytes:
        """An .npz file's contents."""
        head = json.dumps([self.crops, self.is_black, list(self.histograms), list(self.largest)])
        histograms = self.histograms.values()
        file = io.BytesIO()
        np.savez_compressed(
            file,
            head=np.array(head),
            counts=np.stack([h.counts for h in histograms]),
            exponents=np.array([h.exponent for h in histograms]),
            peaks=np.array([h.largest for h in histograms]),
            largest=np.array(list(self.largest.values()), np.float64),
        )
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Observations":
        """Inverse of `to_bytes`; ValueError, OSError, KeyError or zipfile.BadZipFile for other data."""
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            crops, is_black, quantised, others = json.loads(str(file["head"]))
            parts = zip(quantised, file["counts"], file["exponents"], file["peaks"])
            histograms = {name: Histogram.of(counts, int(e), float(peak)) for name, counts, e, peak in parts}
            return cls(crops, is_black, histograms, dict(zip(others, file["largest"].tolist())))


def observe(
    model: Any, batches: Iterable[Crop], threads: int = 0, progress: Callable[[int], None] | None = None
) -> Observations:
    """Run every crop.

    Args:
        model: onnx.ModelProto of `load_model`, with one uint8 input (N, H, W, 3).
        batches: uint8 arrays (B, H, W, 3), read once; B may vary and does not matter.
        threads: of ONNX Runtime, 0 for all cores.
        progress: called with the number of crops done, after each.
    Raises:
        QanetError: another graph, crops of a wrong shape or dtype, an activation that is NaN or infinite.
    """
    names = place(model, ()).observed()
    others = [name for name in _network_tensors(model.graph) if name not in names]
    run = _session(model, names, others, threads)
    histograms = {name: Histogram() for name in names}
    largest = np.zeros(len(others), np.float64)
    crops, is_black = 0, True
    for crop in each_crop(batches, crop_shape(model)):
        is_black = is_black and not crop.any()
        values = run(crop)
        for name, value in zip(names, values):
            try:
                histograms[name].add(value)
            except ValueError as error:
                raise _not_finite(name) from error
        peaks = np.array(values[len(names) :], np.float64).reshape(-1)
        if not np.isfinite(peaks).all():
            raise _not_finite(others[int(np.flatnonzero(~np.isfinite(peaks))[0])])
        largest = np.maximum(largest, peaks)
        crops += 1
        if progress:
            progress(crops)
    return Observations(crops, is_black, histograms, dict(zip(others, largest.tolist())))


def _not_finite(name: str) -> QanetError:
    return QanetError(
        f"calibration: a value is NaN or infinite in tensor {name!r}", next_command="qanet export CHECKPOINT"
    )


def crop_shape(model: Any) -> tuple[int | None, ...]:
    """(H, W, 3) of the graph's uint8 input, None for what is dynamic; QanetError where there is no such input."""
    return tuple(_feed(model)[1])


def each_crop(batches: Iterable[Crop], shape: tuple[int | None, ...]) -> Iterator[Crop]:
    """The crops (1, H, W, 3) uint8 of all batches; QanetError at the first that is not of that shape."""
    for batch in batches:
        batch = np.asarray(batch)
        fits = batch.ndim == 4 and all(want in (None, got) for want, got in zip(shape, batch.shape[1:]))
        if not fits or batch.dtype != np.uint8:
            expected = ", ".join("?" if size is None else str(size) for size in shape)
            raise QanetError(
                "the crops do not fit the model",
                expected=f"uint8 (B, {expected})",
                got=f"{batch.dtype} {batch.shape}",
                next_command="qanet.geometry.crop_people at the model's input size",
            )
        for index in range(len(batch)):
            yield np.ascontiguousarray(batch[index : index + 1])


def _feed(model: Any) -> tuple[Any, tuple[int | None, ...]]:
    """The uint8 input that the convolutions depend on, and its (H, W, 3)."""
    import onnx

    view = GraphView.of(model.graph)
    weighted = [name for node in model.graph.node if node.op_type in WEIGHTED for name in node.input]
    read = {name for index in view.upstream(weighted) for name in model.graph.node[index].input} | set(weighted)
    inputs = [v for v in model.graph.input if v.name in read and v.name not in view.initialisers]
    shape = view.shapes.get(inputs[0].name, ()) if len(inputs) == 1 else ()
    if len(inputs) != 1 or len(shape) != 4 or inputs[0].type.tensor_type.elem_type != onnx.TensorProto.UINT8:
        raise QanetError(
            "the graph cannot be calibrated",
            expected="one uint8 input (N, H, W, 3) before the convolutions",
            got=[v.name for v in inputs],
            next_command="qanet export CHECKPOINT",
        )
    return inputs[0], shape[1:]


def _network_tensors(graph: Any) -> list[str]:
    """Float activations that a layer with weights makes or depends on, in graph order."""
    import onnx

    view = GraphView.of(graph)
    floats = {v.name for v in graph.value_info if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    made = [name for node in graph.node if node.op_type in WEIGHTED for name in node.output]
    inside = view.upstream(made)
    known = floats | {value.name for value in graph.output}
    return [name for index in sorted(inside) for name in graph.node[index].output if name in known]


def _session(
    model: Any, names: list[str], others: list[str], threads: int
) -> Callable[[Crop], list[NDArray[np.float32]]]:
    """A function crop -> the activations `names`, then the largest magnitude of each of `others`."""
    import onnx
    import onnxruntime as ort

    feed, _ = _feed(model)
    view = GraphView.of(model.graph)
    needed = view.upstream([*names, *others])
    nodes = [node for index, node in enumerate(model.graph.node) if index in needed]
    peaks = []
    for number, name in enumerate(others):
        nodes.append(onnx.helper.make_node("Abs", [name], [f"calibration.abs.{number}"]))
        nodes.append(
            onnx.helper.make_node("ReduceMax", [f"calibration.abs.{number}"], [f"calibration.{number}"], keepdims=0)
        )
        peaks.append(f"calibration.{number}")
    wanted = [*names, *peaks]
    outputs = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in wanted]
    read = {name for node in nodes for name in node.input}
    constants = [tensor for tensor in model.graph.initializer if tensor.name in read]
    graph = onnx.helper.make_graph(nodes, "calibration", [feed], outputs, constants)
    part = onnx.helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(part.SerializeToString(), options, ["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions have no common class of their own
        raise QanetError("ONNX Runtime refuses the graph", got=str(error).splitlines()[0]) from error
    return lambda crop: session.run(wanted, {feed.name: crop})


def cache_folder() -> Path:
    """Where calibrations and sensitivities are kept."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "qanet" / "calibration"


def cache_key(*parts: object) -> str:
    """Hex digest of parts that differ in JSON."""
    return hashlib.sha256(json.dumps([_VERSION, *parts], sort_keys=True).encode()).hexdigest()[:32]


def cached_observations(key: str, make: Callable[[], Observations]) -> tuple[Observations, bool]:
    """Observations from the cache, else made and stored; and whether they came from the cache.

    A file that cannot be read counts as absent, and a cache that cannot be written as no cache.
    """
    path = cache_folder() / f"{key}.npz"
    try:
        return Observations.from_bytes(path.read_bytes()), True
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        made = make()
    store(path, made.to_bytes())
    return made, False


def store(path: Path, data: bytes) -> None:
    """Write a file of the cache where that is possible."""
    try:
        write_bytes(path, data)
    except QanetError:
        return  # a full disk or a read-only home: the result is used all the same


class CropSpool:
    """Crops read once from their source and as often as wanted from here; what does not fit in 64 MiB is in a file.

    Attributes:
        digest: hex sha256 over the pixels in order, the same however the crops were batched.
    """

    def __init__(self, crops: Iterable[Crop]):
        """crops: (1, H, W, 3) uint8, all of one shape (see `each_crop`)."""
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES)  # noqa: SIM115 closed by __exit__
        self._shape: tuple[int, ...] = ()
        self._count = 0
        digest = hashlib.sha256()
        for crop in crops:
            self._shape = self._shape or crop.shape
            if crop.shape != self._shape:
                raise QanetError("the crops differ in size", expected=self._shape, got=crop.shape)
            data = crop.tobytes()
            digest.update(data)
            self._file.write(data)
            self._count += 1
        self.digest = digest.hexdigest()

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Crop]:
        size = int(np.prod(self._shape)) if self._shape else 0
        for index in range(self._count):
            self._file.seek(index * size)
            yield np.frombuffer(self._file.read(size), np.uint8).reshape(self._shape)

    def __enter__(self) -> "CropSpool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
