"""`qanet build`: typed graphs and engines of a bundle, each proved to be in the precision it was asked for."""

import argparse
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qanet.bundle import PRECISIONS, Bundle, open_bundle, safe_name, writable_copy
from qanet.cli.commandline import command_parser, emit, note, table
from qanet.cpu_precision import cpu_signature
from qanet.errors import QanetError
from qanet.export.engines.built import BuiltEngine
from qanet.export.engines.census import Census, check_delivered

RUNTIMES = ("openvino", "tensorrt", "tensorrt-rtx")
KERNEL_TAIL = ("logits", "iou_scores")
_SUFFIX = {"openvino": "blob", "tensorrt": "plan", "tensorrt-rtx": "plan"}


def write_typed_graph(bundle: Bundle, precision: str, quantize: Callable[[Bundle], None]) -> None:
    """Make the bundle's FP16 or INT8 graph from its FP32 graph where it is not there yet."""
    if precision in bundle.manifest["graphs"]:
        return
    if precision == "int8":
        quantize(bundle)
        return
    import onnx

    from qanet.export.typed import to_fp16

    model = to_fp16(onnx.load_model_from_string(bundle.graph("fp32")))
    bundle.add_file("model.fp16.onnx", model.SerializeToString(deterministic=True))
    bundle.manifest["graphs"]["fp16"] = "model.fp16.onnx"


@contextmanager
def graph_file(bundle: Bundle, precision: str, runtime: str) -> Iterator[Path]:
    """The typed ONNX file that a runtime is built from; what INT8 leaves in floating point is FP16 for TensorRT."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{bundle.name}.{precision}.onnx"
        data = bundle.graph(precision)
        if precision == "int8" and runtime != "openvino":
            import onnx

            from qanet.export.typed import to_fp16

            data = to_fp16(onnx.load_model_from_string(data)).SerializeToString(deterministic=True)
        path.write_bytes(data)
        yield path


def build_engine(
    bundle: Bundle, precision: str, runtime: str, options: argparse.Namespace, report: Callable[[str], None]
) -> BuiltEngine:
    """Build one engine and refuse it when its census is not what was asked."""
    outputs = KERNEL_TAIL if options.tail == "kernel" else None
    with graph_file(bundle, precision, runtime) as path:
        if runtime == "openvino":
            from qanet.export.engines import openvino

            built = openvino.build(path, precision=precision, outputs=outputs, report=report)
            expected = openvino.deliverable(precision)
        else:
            from qanet.export.engines import tensorrt

            built = tensorrt.build(
                path, runtime=runtime, targets=options.target.split(",") if options.target else None,
                max_batch=options.max_batch, static_buckets=options.static_buckets, workspace_mib=options.workspace,
                optimization_level=options.builder_optimization_level, timing_cache=options.timing_cache_file,
                outputs=outputs, report=report,
            )  # fmt: skip
            expected = precision
        check_delivered(built.census, expected, keep=_kept_in_float(path, built.census) if precision == "int8" else ())
    return built


def _kept_in_float(graph: Path, census: Census) -> set[str]:
    """Compute nodes whose activation no DequantizeLinear feeds: calibration left them in floating point on purpose."""
    import onnx

    model = onnx.load(str(graph))
    quantized = {out for node in model.graph.node if node.op_type == "DequantizeLinear" for out in node.output}
    fed = {node.name for node in model.graph.node if node.input and node.input[0] in quantized}
    return {layer.name for layer in census.compute} - fed


def engine_entry(built: BuiltEngine, precision: str) -> dict[str, Any]:
    """What the manifest says of an engine."""
    entry: dict[str, Any] = {
        "runtime": built.runtime, "version": built.version, "precision": precision, "targets": list(built.targets),
        "inputs": list(built.inputs), "outputs": list(built.outputs), "seconds": round(built.seconds, 2),
        "census": built.census.to_json(), "options": dict(built.options), "messages": list(built.messages),
    }  # fmt: skip
    if built.runtime == "openvino":
        import openvino

        entry["cpu"] = cpu_signature(openvino.Core())  # the blob holds code for this CPU's instructions
        entry["hint"] = built.options["INFERENCE_PRECISION_HINT"]
    return entry


def _choices(text: str, known: Sequence[str], what: str) -> list[str]:
    chosen = [part.strip() for part in text.split(",") if part.strip()]
    for name in chosen:
        if name not in known:
            raise QanetError(f"unknown {what} {name!r}", expected=f"of {', '.join(known)}", got=text)
    if not chosen:
        raise QanetError(f"no {what} given", expected=f"one or more of {', '.join(known)}", got=repr(text))
    return chosen


def _arguments() -> argparse.ArgumentParser:
    parser = command_parser("build", "Write typed graphs and build engines; fails when a precision is not delivered.")
    parser.add_argument("model", metavar="NAME.qanet")
    parser.add_argument("--precision", default="fp32,fp16,int8", help="comma-separated (fp32,fp16,int8)")
    parser.add_argument("--fp16", dest="precision", action="store_const", const="fp16", help="sugar for --precision")
    parser.add_argument("--int8", dest="precision", action="store_const", const="int8", help="sugar for --precision")
    parser.add_argument("--runtime", default="auto", help="openvino, tensorrt, tensorrt-rtx; auto: what is here")
    parser.add_argument("--target", metavar="SM", help="GPUs, e.g. sm_86,sm_120 (TensorRT-RTX: none needed here)")
    parser.add_argument("--tail", default="kernel", choices=("kernel", "graph"), help="outputs the engine keeps")
    parser.add_argument("--max-batch", type=int, default=16, metavar="N")
    parser.add_argument("--static-buckets", action="store_true", help="one profile a batch size 1, 2, 4, 8, 16")
    parser.add_argument("--workspace", type=int, default=4096, metavar="MiB")
    parser.add_argument("--builder-optimization-level", "--builderOptimizationLevel", type=int, metavar="0..5")
    parser.add_argument("--timing-cache-file", "--timingCacheFile", metavar="FILE")
    parser.add_argument("--output", metavar="NAME.qanet", help="build into a copy")
    return parser


def _runtimes(text: str) -> list[str]:
    if text != "auto":
        return _choices(text, RUNTIMES, "runtime")
    import importlib.util

    return ["tensorrt"] if importlib.util.find_spec("tensorrt") else ["openvino"]


def main(argv: Sequence[str], *, quantize: Callable[[Bundle], None]) -> int:
    """Entry point; `quantize` is qanet.calib.command.quantize_bundle, handed over by the command table."""
    args = _arguments().parse_args(argv)
    precisions = _choices(args.precision, PRECISIONS, "precision")
    runtimes = _runtimes(args.runtime)
    bundle = writable_copy(open_bundle(args.model), Path(args.output) if args.output else None)
    for precision in precisions:
        write_typed_graph(bundle, precision, quantize)
        bundle.save()
    rows, entries = [], []
    for runtime in runtimes:
        for precision in precisions:
            built = build_engine(bundle, precision, runtime, args, lambda line: None if args.json else note(line))
            target = safe_name("+".join(built.targets))
            file = f"engines/{runtime}-{built.version}-{target}.{precision}.{_SUFFIX[runtime]}"
            entry = engine_entry(built, precision)
            bundle.add_engine(file, built.data, entry)
            bundle.save()
            entries.append({"file": file, **{k: v for k, v in entry.items() if k != "census"}})
            shares = built.census.multiply_add_shares
            share = ", ".join(f"{name} {value:.0%}" for name, value in shares.items() if value >= 0.005)
            rows.append((runtime, precision, target, f"{len(built.data) / 2**20:.1f}", share, built.census.reformats,
                         f"{built.seconds:.1f}"))  # fmt: skip
    header = ("runtime", "precision", "target", "MiB", "multiply-adds in", "reformats", "seconds")
    document = {"bundle": str(bundle.path), "graphs": bundle.manifest["graphs"], "engines": entries}
    emit(args.json, document, table(rows, header) + f"\nwrote into {bundle.path}")
    return 0
