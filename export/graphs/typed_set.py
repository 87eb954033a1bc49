"""The typed graphs of a bundle: written from its FP32 graph, and again when what they came from has changed."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qanet.bundle import NO_VNNI, Bundle
from qanet.calib.bundle import add_quantised_graph
from qanet.calib.quantize import NARROW_TYPES, requantised_without_vnni
from qanet.export.engines.source_graph import parse_graph

SCALES = "scales.json"


def write_typed_graph(bundle: Bundle, precision: str) -> None:
    """Make the bundle's graph where it is not there, or is older than the weights or the scales; unsaved.

    Args:
        precision: of the graph, or NO_VNNI.
    """
    if precision == NO_VNNI:
        write_typed_graph(bundle, "int8")  # what the other stages of the project read, and GPUs
    source = parse_graph(bundle.graph("fp32"), "model.onnx")  # what is broken is told before anything is written
    if precision == "fp32":
        return
    sources = [bundle.manifest["files"].get(file, {}).get("sha256", "")[:16] for file in ("model.onnx", SCALES)]
    made = bundle.manifest["made"].setdefault("typed_from", {})
    known = made.get(precision, sources if precision in NARROW_TYPES else None)  # calibration wrote it itself
    if precision in bundle.manifest["graphs"] and known == sources:
        made[precision] = sources
        return
    if precision == NO_VNNI and SCALES not in bundle.manifest["files"] and "int8" in bundle.manifest["graphs"]:
        bundle.add_file(f"model.{precision}.onnx", requantised_without_vnni(bundle.graph("int8")))
        bundle.manifest["graphs"][precision] = f"model.{precision}.onnx"
    elif precision in NARROW_TYPES:
        add_quantised_graph(bundle, precision)
    else:
        from qanet.export.graphs.typed import to_bf16, to_fp16

        typed = to_bf16(source) if precision == "bf16" else to_fp16(source, largest_activations(bundle))
        bundle.add_file(f"model.{precision}.onnx", typed.SerializeToString(deterministic=True))
        bundle.manifest["graphs"][precision] = f"model.{precision}.onnx"
    made[precision] = sources


def largest_activations(bundle: Bundle) -> dict[str, float]:
    """Activation -> largest magnitude in calibration; empty for a bundle that was not calibrated."""
    from qanet.export.graphs.typed import largest_of_scales

    return largest_of_scales(bundle.read(SCALES)) if SCALES in bundle.manifest["files"] else {}


@contextmanager
def graph_file(bundle: Bundle, precision: str, runtime: str, data: bytes | None = None) -> Iterator[Path]:
    """The typed ONNX file that a runtime is built from; what INT8 leaves in floating point is FP16 for TensorRT.

    Args:
        data: ONNX file contents in place of the bundle's graph of that precision.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{bundle.name}.{precision}.onnx"
        graph = bundle.graph(precision) if data is None else data
        if precision in NARROW_TYPES and runtime != "openvino":
            from qanet.export.graphs.typed import to_fp16

            typed = to_fp16(parse_graph(graph, path.name), largest_activations(bundle))
            graph = typed.SerializeToString(deterministic=True)
        path.write_bytes(graph)
        yield path
