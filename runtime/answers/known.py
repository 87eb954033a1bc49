"""Known answers: the outputs of a bundle's graphs for a few pictures, kept in the bundle as `answers.npz`.

The pictures are two people and two streets out of the demo clip of Sports2D 0.8.34 (BSD-3-Clause), resampled to the
bundle's input and stored there as PNG, so that a later decoder or another set of pictures changes nothing. Answers are
stored at reduced precision: maps at every second row and column in float16, labels at every second row and column, and
of a detector's boxes those with a score of 0.1 or more. The pictures are softened and have 64 levels, so that they are
small.

An INT8 graph has answers of its own, computed from its Q and DQ nodes in floating point. They are the same on every
machine, so they separate an engine that computes its graph wrongly from a graph that is merely coarse.
"""

import io
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.bundle import Bundle
from qanet.errors import QanetError
from qanet.geometry import letterboxed
from qanet.labels import PERSON_BOX1

FILE = "answers.npz"
PICTURES = Path(__file__).with_name("pictures")
_STEP = 2  # of maps, every second row and column is kept
_LARGEST_HALF = 6e4  # what is larger is stored as float32
_LEAST_SCORE = 0.1  # boxes of less are stored as zeros
_MAX_BYTES = 64 << 20
_MOST_PX = 4096
_FRESH_COPY = "take a fresh copy of the bundle, or export it again"

Outputs = Mapping[str, NDArray[Any]]
RunGraph = Callable[[bytes, NDArray[np.uint8], NDArray[np.float32]], Outputs]  # (ONNX, crops, box scores) -> outputs


@dataclass(frozen=True)
class KnownAnswers:
    """Pictures and the answers to them.

    Attributes:
        crops: (K, H, W, 3) uint8 BGR.
        box_scores: (K,) float32.
        outputs: graph ("fp32", "int8", "int8-no-vnni") -> output name -> its answer, as `reduced` gives it.
    """

    crops: NDArray[np.uint8]
    box_scores: NDArray[np.float32]
    outputs: dict[str, dict[str, NDArray[Any]]]

    def to_bytes(self) -> bytes:
        """The file; the same content gives the same bytes."""
        import cv2

        arrays: dict[str, NDArray[Any]] = {"box_scores": self.box_scores}
        for number, crop in enumerate(self.crops):
            arrays[f"crop{number}"] = np.asarray(cv2.imencode(".png", crop)[1], np.uint8).ravel()
        for graph, outputs in self.outputs.items():
            arrays |= {f"{graph}/{name}": values for name, values in outputs.items()}
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, values in sorted(arrays.items()):
                entry = io.BytesIO()
                np.lib.format.write_array(entry, np.ascontiguousarray(values), allow_pickle=False)
                archive.writestr(zipfile.ZipInfo(f"{name}.npy"), entry.getvalue(), zipfile.ZIP_DEFLATED)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> "KnownAnswers":
        """Read what `to_bytes` wrote.

        Raises:
            QanetError: not such a file.
        """

        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                if sum(entry.file_size for entry in archive.infolist()) > _MAX_BYTES:
                    raise ValueError(f"more than {_MAX_BYTES >> 20} MiB")
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            scores = arrays.pop("box_scores")
            crops = [_picture(arrays.pop(f"crop{k}")) for k in range(len(scores))]
            outputs: dict[str, dict[str, NDArray[Any]]] = {}
            for name, values in arrays.items():
                graph, _, output = name.partition("/")
                if values.dtype.kind not in "fiu" or values.ndim < 1 or len(values) != len(crops):
                    raise ValueError(f"{name} is no answer to {len(crops)} pictures: {values.dtype} {values.shape}")
                outputs.setdefault(graph, {})[output] = values
            if not outputs:
                raise ValueError("no answers")
            return cls(np.stack([np.asarray(crop, np.uint8) for crop in crops]), scores.astype(np.float32), outputs)
        except Exception as error:  # zipfile, NumPy and OpenCV each have many, for each way a file can be broken
            raise QanetError(
                f"{FILE} cannot be read", expected="known answers", got=error, next_command=_FRESH_COPY
            ) from error


def _picture(png: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A stored picture; ValueError for what is no PNG, or one that would be huge once it is unpacked."""
    import cv2

    head = png[:24].tobytes()
    if head[:8] != b"\x89PNG\r\n\x1a\n" or max(struct.unpack(">II", head[16:24])) > _MOST_PX:
        raise ValueError(f"a picture that is no PNG of at most {_MOST_PX} pixels a side")
    return np.asarray(cv2.imdecode(png, cv2.IMREAD_COLOR), np.uint8)


def reduced(outputs: Outputs) -> dict[str, NDArray[Any]]:
    """Outputs as answers are stored: maps (N, C, h, w) and labels (N, H, W) thinned, floats shortened."""
    kept: dict[str, NDArray[Any]] = {}
    for name, values in outputs.items():
        values = np.asarray(values)
        if values.ndim == 4:
            thin = values[:, :, ::_STEP, ::_STEP]
            fits = bool(np.abs(thin).max(initial=0) < _LARGEST_HALF)  # also false for NaN
            kept[name] = thin.astype(np.float16 if fits else np.float32)
        elif values.ndim == 3 and values.dtype.kind in "iu":
            kept[name] = values[:, ::_STEP, ::_STEP].astype(np.uint8)
        else:
            kept[name] = values.astype(np.float32)
    if {"boxes", "scores"} <= kept.keys():
        kept["boxes"] = np.where(kept["scores"][..., None] >= _LEAST_SCORE, kept["boxes"], 0).astype(np.float32)
    return kept


def pictures(bundle: Bundle) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The package's pictures as a bundle's input: crops (2, H, W, 3) uint8 BGR and box scores (2,) float32."""
    import cv2

    height, width = bundle.input_hw
    detects = bundle.labels == PERSON_BOX1
    crops = []
    for file in sorted(PICTURES.glob("street-*.jpg" if detects else "person-*.jpg")):
        image = np.asarray(cv2.imread(str(file), cv2.IMREAD_COLOR), np.uint8)
        whole = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        crop = letterboxed(image, bundle.input_hw)[0] if detects else np.asarray(whole, np.uint8)
        crops.append(np.asarray(cv2.GaussianBlur(crop, (0, 0), 0.7), np.uint8) & 0xFC)
    return np.stack(crops), np.linspace(1, 0.5, len(crops), dtype=np.float32)


def source_of(bundle: Bundle, graph: str) -> str:
    """Names what a graph's answers follow from: the FP32 graph, and for INT8 the scales too."""
    files = bundle.manifest["files"]
    model = files[bundle.manifest["graphs"]["fp32"]]["sha256"][:16]
    return model if graph == "fp32" else f"{model} {files.get('scales.json', {}).get('sha256', '')[:16]}"


def current_graphs(bundle: Bundle) -> set[str]:
    """Graphs whose answers the bundle holds, made from what it holds now."""
    record = bundle.manifest.get("answers") or {}
    if record.get("file") not in bundle.manifest["files"]:
        return set()
    if "fp32" not in bundle.manifest["graphs"]:
        return set(record.get("of", {}))  # a bundle of engines alone: nothing says that its answers are older
    return {graph for graph, source in record.get("of", {}).items() if source == source_of(bundle, graph)}


def stored_answers(bundle: Bundle) -> KnownAnswers | None:
    """The bundle's own answers, without those of older weights or scales; None where it has none, or none for FP32.

    Raises:
        QanetError: the file was changed, or cannot be read.
    """
    current = current_graphs(bundle)
    if not current or ("fp32" not in current and "fp32" in bundle.manifest["graphs"]):
        return None
    known = KnownAnswers.from_bytes(bundle.read(bundle.manifest["answers"]["file"]))
    if known.crops.shape[1:] != (*bundle.input_hw, 3):
        raise QanetError(
            f"{bundle.path}: {FILE} has pictures of another size",
            expected=(*bundle.input_hw, 3),
            got=known.crops.shape[1:],
            next_command=_FRESH_COPY,
        )
    lacking = current - known.outputs.keys()
    if lacking:
        raise QanetError(
            f"{bundle.path}: {FILE} has no answers of {min(lacking)}",
            expected=", ".join(sorted(current)),
            got=", ".join(known.outputs),
            next_command=_FRESH_COPY,
        )
    return KnownAnswers(known.crops, known.box_scores, {g: o for g, o in known.outputs.items() if g in current})


def renew_answers(bundle: Bundle, graphs: Mapping[str, bytes], run: RunGraph, tolerances: Mapping[str, Any]) -> None:
    """Add the answers of graphs to a bundle's current ones; the manifest is not saved.

    Args:
        graphs: "fp32", "int8" or "int8-no-vnni" -> ONNX file contents.
        run: computes a graph exactly as it stands, in floating point.
        tolerances: for the manifest: how far each precision may be off.
    Raises:
        QanetError: a graph that does not run, or answers that are not finite.
    """
    known = stored_answers(bundle)
    crops, scores = pictures(bundle) if known is None else (known.crops, known.box_scores)
    outputs = {} if known is None else dict(known.outputs)
    for graph, data in graphs.items():
        found = reduced(run(data, crops, scores))
        broken = [name for name, values in found.items() if not np.isfinite(values).all()]
        if broken:
            raise QanetError(
                f"the {graph} graph of {bundle.name} answers with numbers that are not finite",
                expected="finite",
                got=", ".join(broken),
                next_command="train or export it again",
            )
        outputs[graph] = found
    bundle.add_file(FILE, KnownAnswers(crops, scores, outputs).to_bytes())
    bundle.manifest["answers"] = {
        "file": FILE,
        "of": {graph: source_of(bundle, graph) for graph in outputs},
        "tolerances": {name: dict(values) for name, values in tolerances.items()},
    }
