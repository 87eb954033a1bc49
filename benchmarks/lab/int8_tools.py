"""INT8 graphs of several quantisers: accuracy, size and speed of one network.

    python -m qanet.benchmarks.lab.int8_tools NAME.qanet --data CCP --keep graphs
    python -m qanet.benchmarks.lab.int8_tools NAME.qanet --crops 0 --images 0 --rounds 300 --graph ours=graphs/ours.onnx

Compared are this project's graphs, ONNX Runtime's quantize_static (symmetric S8S8, per channel, with its default
operators and with convolutions alone), and graphs that another tool wrote (--graph NAME=FILE; NVIDIA ModelOpt needs an
environment of its own). Latency is the network's on this CPU through OpenVINO, all graphs in turns. Timing needs a
quiet machine, the rest does not: keep the graphs of a first run, and time them alone in a second.
"""

import argparse
import importlib.util
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qanet.bundle import Bundle, open_bundle
from qanet.calib.latency import network_latency_ms
from qanet.calib.observe import CropSpool, crop_shape, each_crop
from qanet.calib.placement import load_model
from qanet.calib.quantize import int8_of_this_cpu, quantise
from qanet.calib.scales import find_scales
from qanet.commandline import command_parser, emit, note, run_module, table
from qanet.cpu import sums_saturate
from qanet.errors import QanetError
from qanet.files import write_bytes
from qanet.runtime.crops import people_crops
from qanet.runtime.evaluate import open_accuracy

_HEADER = ("graph", "mIoU", "pixel acc.", "rank corr.", "MB", "Q/DQ nodes", "OpenVINO ms", "made in s", "TensorRT-RTX")


def _arguments() -> argparse.ArgumentParser:
    parser = command_parser("compare", "INT8 graphs of several tools: accuracy, size and speed of one network.")
    parser.prog = "python -m qanet.benchmarks.lab.int8_tools"
    parser.add_argument("model", metavar="NAME.qanet")
    parser.add_argument("--data", metavar="DIR", help="a data set with a train and a val split")
    parser.add_argument("--crops", type=int, default=32, metavar="N", help="to calibrate on (32); 0 makes no graph")
    parser.add_argument("--images", type=int, default=100, metavar="N", help="to measure on (100); 0: times alone")
    parser.add_argument("--keep", metavar="DIR", help="write the INT8 graphs that are made there")
    parser.add_argument("--rounds", type=int, default=50, metavar="N", help="of the timing (50)")
    parser.add_argument("--threads", type=int, metavar="N")
    parser.add_argument(
        "--graph", action="append", default=[], metavar="NAME=FILE", help="an INT8 graph made elsewhere"
    )
    return parser


def main(argv: Sequence[str]) -> int:
    """Entry point."""
    args = _arguments().parse_args(argv)
    for name, least in (("crops", 0), ("images", 0), ("rounds", 1)):
        if getattr(args, name) < least:
            raise QanetError(f"bad --{name}", expected=f"{least} or more", got=getattr(args, name))
    if args.data is None and (args.crops or args.images):
        raise QanetError("no --data", expected="a data set, or --crops 0 and --images 0")
    bundle = open_bundle(args.model)
    others = {name: path.read_bytes() for name, path in map(_other, args.graph)}
    measure = None
    if args.images:
        measure, _ = open_accuracy(bundle, Path(args.data), args.images, args.threads)
    fp32 = bundle.graph("fp32")
    made, seconds = dict[str, bytes](), dict[str, float]()
    if args.crops:
        keep = Path(args.keep) if args.keep else None
        made, seconds = _make(bundle, Path(args.data), args.crops, args.threads or 0, keep)
    graphs = {"FP32": (fp32, "fp32"), "FP32, run in BF16": (fp32, "bf16")}
    graphs |= {name: (data, "int8") for name, data in (made | others).items()}
    latency_ms = network_latency_ms(graphs, bundle.input_hw, args.rounds, args.threads)
    lines = []
    for name, (data, precision) in graphs.items():
        lines.append(
            {
                "graph": name,
                **(measure(data, precision) if measure else {}),
                "bytes": len(data),
                "qdq_nodes": _qdq_nodes(data),
                "latency_ms": latency_ms[name],
                "made_s": seconds.get(name),
                "tensorrt_rtx": _rtx_verdict(data, bundle.input_hw) if measure else "not asked",
            }
        )
        note(f"{name}: measured")
    emit(args.json, lines, table([_row(line) for line in lines], _HEADER))
    return 0


def _make(
    bundle: Bundle, data: Path, count: int, threads: int, keep: Path | None
) -> tuple[dict[str, bytes], dict[str, float]]:
    """The INT8 graphs by name, and the seconds each took, calibrated on `count` crops; written to `keep` as well."""
    graphs, seconds = dict[str, bytes](), dict[str, float]()
    with tempfile.TemporaryDirectory() as folder:
        fp32 = bundle.graph("fp32")
        batches = people_crops(data, bundle.input_hw, count)
        with CropSpool(each_crop(batches, crop_shape(load_model(fp32)))) as crops:
            for name, make in _makers(fp32, Path(folder), crops, threads).items():
                start = time.monotonic()
                graphs[name] = make()
                seconds[name] = time.monotonic() - start
                note(f"{name}: made in {seconds[name]:.1f} s")
                if keep:
                    write_bytes(keep / f"{name.replace(', ', '-').replace(' ', '-')}.onnx", graphs[name])
    return graphs, seconds


def _other(text: str) -> tuple[str, Path]:
    name, equals, file = text.partition("=")
    if not equals or not Path(file).is_file():
        raise QanetError("bad --graph", expected="NAME=FILE of an ONNX graph", got=text)
    return name, Path(file)


def _makers(fp32: bytes, folder: Path, crops: CropSpool, threads: int) -> dict[str, Callable[[], bytes]]:
    """Name -> a function that makes an INT8 graph of the FP32 one; `folder` takes quantize_static's files."""
    model = folder / "model.onnx"
    model.write_bytes(fp32)

    def ours(method: str) -> bytes:
        scales, _ = find_scales(fp32, crops, method, threads=threads, use_cache=False)
        return quantise(fp32, scales, int8_of_this_cpu())

    return {
        "qanet, entropy": lambda: ours("entropy"),
        "qanet, minmax": lambda: ours("minmax"),
        "quantize_static, minmax": lambda: _quantize_static(model, crops, None),
        "quantize_static, minmax, Conv": lambda: _quantize_static(model, crops, ["Conv"]),
    }


def _quantize_static(model: Path, crops: CropSpool, operators: list[str] | None) -> bytes:
    """ONNX Runtime's own: symmetric S8S8 Q/DQ, weights per channel, activations by minmax."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        """One crop at a time."""

        def __init__(self) -> None:
            self._crops = iter(crops)

        def get_next(self) -> dict[str, Any] | None:
            crop = next(self._crops, None)
            return None if crop is None else {"crops": crop, "box_scores": np.ones(1, np.float32)}

    output = model.with_name("quantize_static.onnx")
    quantize_static(
        model,
        output,
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=operators,
        reduce_range=sums_saturate(),
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True},
    )
    return output.read_bytes()


def _qdq_nodes(data: bytes) -> int:
    import onnx

    graph = onnx.load_model_from_string(data).graph
    return sum(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in graph.node)


def _rtx_verdict(data: bytes, input_hw: tuple[int, int]) -> str:
    """Whether TensorRT-RTX parses and builds a graph for sm_86; no GPU is needed."""
    if importlib.util.find_spec("tensorrt_rtx") is None:
        return "not installed"
    import tensorrt_rtx as trt

    logger = trt.Logger(trt.Logger.INTERNAL_ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(data):
        return f"refused: {parser.get_error(0).desc().splitlines()[0][:80]}"
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    profile = builder.create_optimization_profile()
    profile.set_shape("crops", *[(1, *input_hw, 3)] * 3)
    profile.set_shape("box_scores", (1,), (1,), (1,))
    config.add_optimization_profile(profile)
    return "builds" if builder.build_serialized_network(network, config) is not None else "fails to build"


def _row(line: dict[str, Any]) -> tuple[object, ...]:
    made = "" if line["made_s"] is None else f"{line['made_s']:.1f}"
    scores = (f"{line[key]:.2f}" if key in line else "-" for key in ("miou", "pixel_accuracy", "rank_correlation"))
    return (
        line["graph"],
        *scores,
        f"{line['bytes'] / 1e6:.1f}",
        line["qdq_nodes"],
        f"{line['latency_ms']:.2f}",
        made,
        line["tensorrt_rtx"],
    )


if __name__ == "__main__":
    run_module(main)
