"""One order of `qanet build`: a runtime and a precision -> engines, counted and, if asked, verified."""

import argparse
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.bundle import NO_VNNI, Bundle
from qanet.commandline import note
from qanet.errors import QanetError, QanetWarning
from qanet.export.building.asking import alone, ask_built
from qanet.export.building.float_rest import check_float_rest, choose_float_rest, describe_float_rest
from qanet.export.building.verify import Arrays, Run, drawn_crops, verify
from qanet.export.engines.built import BuiltEngine
from qanet.export.engines.census import Census, check_delivered
from qanet.export.engines.openvino import KERNEL_TAIL, deliverable
from qanet.export.engines.tensorrt_options import Options
from qanet.export.graphs.typed_set import graph_file, largest_activations
from qanet.runtime.answers.verdicts import Difference
from qanet.runtime.backends.select import WrongAnswers, open_engine

_VERIFIED_CROPS = 2


@dataclass(frozen=True)
class Order:
    """What to build: runtime and precision, the builder's options, and the rest of the command line."""

    runtime: str
    precision: str
    options: Options
    args: argparse.Namespace
    detects: bool = False  # a person detector, whose one tail is in the graph
    no_vnni: bool = False  # INT8 weights for a CPU whose 16-bit sums would saturate

    @property
    def graph(self) -> str:
        """The bundle's graph to build from, by its key in the manifest."""
        return NO_VNNI if self.no_vnni and self.precision == "int8" else self.precision

    @property
    def has_another_graph(self) -> bool:
        """Whether an engine that answers wrongly is built again from the graph for CPUs without VNNI."""
        return self.runtime == "openvino" and self.graph == "int8"

    @property
    def lacks(self) -> str | None:
        """Why this machine cannot deliver the precision, as a sentence; None where it can."""
        if self.runtime != "openvino" or self.precision not in ("fp16", "bf16"):
            return None
        if deliverable(self.precision, None if self.outputs is None else KERNEL_TAIL) != "fp32":
            return None
        return f"{self.precision} was not built: this CPU computes FP32 only"

    @property
    def targets(self) -> list[str] | None:
        """GPUs asked for, None for the runtime's own choice."""
        return self.args.target.split(",") if self.args.target else None

    @property
    def has_float_rest(self) -> bool:
        """Whether part of the graph computes in a type that is this build's to choose."""
        return self.runtime == "openvino" and self.precision == "int8"

    @property
    def outputs(self) -> tuple[str, ...] | None:
        """Outputs to keep, None for all."""
        return KERNEL_TAIL if self.args.tail == "kernel" and not self.detects else None


def check_runtimes(orders: list[Order]) -> None:
    """Everything about libraries, GPUs and options that can be known before a graph is written.

    Raises:
        QanetError: a library is missing, a target, a precision or an option it does not have.
    """
    rest = orders[0].args.float_rest if orders else "auto"
    if rest != "auto" and not any(order.has_float_rest for order in orders):
        asked = ", ".join(f"{order.precision} of {order.runtime}" for order in orders)
        raise QanetError("--float-rest is for INT8 engines of OpenVINO", expected="int8 of openvino", got=asked)
    for order in orders:
        if order.runtime == "openvino":
            deliverable(order.precision)
            check_float_rest(rest if order.has_float_rest else "auto")
            continue
        from qanet.export.engines.tensorrt_library import check_targets, load_library
        from qanet.export.engines.this_gpu import this_gpu

        trt = load_library(order.runtime)
        order.options.check_runtime(trt, order.runtime)
        check_targets(trt, order.runtime, order.targets)
        if order.args.verify:
            this_gpu()  # an engine is verified by running it


def build_engines(bundle: Bundle, order: Order, say: Callable[[str], None]) -> list[BuiltEngine]:
    """Build what is ordered: one engine, or one for each bucket in low-memory mode; each answers before it is kept.

    Raises:
        WrongAnswers: an engine that runs here does not give the known answers.
        QanetError: a build fails, is not in the precision asked for, or departs from its graph with --verify.
    """
    apart = order.args.low_memory and order.runtime != "openvino"
    with graph_file(bundle, order.graph, order.runtime) as path:
        engines, rest = [], None
        if order.has_float_rest:
            rest = choose_float_rest(path, order.outputs, bundle.input_hw, order.args.float_rest)
            if rest is not None and rest.least_ms:
                say(describe_float_rest(rest))
        for options in order.options.one_by_one() if apart else [order.options]:
            built = build_one(path, order, options, order.outputs, say, rest.hint if rest else None)
            if rest is not None:
                built = replace(built, float_rest=rest.to_json())
            keep = _left_wider(bundle, path, order.precision, built.census)
            check_delivered(built.census, _deliverable(order), keep=keep)
            try:
                verdict = ask_built(bundle, built, order.precision, order.graph)
            except WrongAnswers:
                if order.args.verify and not order.has_another_graph:
                    verify_engine(bundle, order, options, built)  # names the layer that departs
                raise
            say(f"  known answers: {verdict or 'not asked: it is for another machine, and answers there first'}")
            for line in verify_engine(bundle, order, options, built) if order.args.verify else ():
                say(f"  {line.name}: {line.value:.2g}, limit {line.limit:g}")
            engines.append(built)
    return engines


def build_one(
    path: Path,
    order: Order,
    options: Options,
    outputs: tuple[str, ...] | None,
    say: Callable[[str], None],
    hint: str | None = None,
) -> BuiltEngine:
    """One engine of a typed ONNX file by the order's runtime; `hint` is OpenVINO's, for what is floating point."""
    if order.runtime == "openvino":
        from qanet.export.engines import openvino

        return openvino.build(path, precision=order.precision, outputs=outputs, hint=hint, report=say)
    asked: dict[str, Any] = {
        "runtime": order.runtime,
        "targets": order.targets,
        "options": options,
        "outputs": outputs,
        "report": say,
    }
    if order.args.low_memory:
        from qanet.export.engines.child import build_apart

        return build_apart(path, **asked)
    from tqdm import tqdm

    from qanet.export.engines import tensorrt

    with tqdm(total=0, leave=False, disable=order.args.json or None) as bar:
        return tensorrt.build(path, bar=None if bar.disable else bar, **asked)


def verify_engine(bundle: Bundle, order: Order, options: Options, built: BuiltEngine) -> list[Difference]:
    """Run an engine that is not in the bundle yet, through the runtime's own loader, against ONNX Runtime."""
    device = "cpu" if order.runtime == "openvino" else "cuda"

    def runner(engine: BuiltEngine) -> Run:
        def run(crops: NDArray[np.uint8], boxes: NDArray[np.float32], outputs: tuple[str, ...]) -> Arrays:
            with tempfile.TemporaryDirectory() as folder:
                scratch = alone(Path(folder), bundle, engine, order.precision)
                with warnings.catch_warnings():  # it is compared with its graph: that it brings no answers is no news
                    warnings.simplefilter("ignore", QanetWarning)
                    opened: Any = open_engine(scratch, device, order.precision, outputs)
                results: Arrays = opened.run(crops, boxes)
                if device == "cuda":
                    opened.close()  # its memory goes back before the next engine is built
                return {name: np.array(results[name]) for name in outputs}

        return run

    def rebuild(graph: bytes, outputs: tuple[str, ...]) -> Run:
        with graph_file(bundle, order.graph, order.runtime, graph) as path:
            hint = built.options.get("INFERENCE_PRECISION_HINT")
            return runner(build_one(path, order, options, outputs, lambda line: None, hint))

    reference = bundle.graph("fp32" if order.precision == "bf16" else order.graph)
    crops = _crops(order, bundle)[: built.batches[0][2] if built.batches else None]
    try:
        return verify(reference, runner(built), built.outputs, _deliverable(order), crops, rebuild)
    except QanetError as error:
        if error.next_command is None and device == "cuda":
            error = QanetError(
                error.fact, expected=error.expected, got=error.got, next_command=_polygraphy(bundle, order)
            )
        raise error


def _polygraphy(bundle: Bundle, order: Order) -> str:
    """The command that compares every tensor of the graph, fusions and all, with NVIDIA's own tool."""
    graph = bundle.path / bundle.manifest["graphs"][order.graph]
    height, width = bundle.input_hw
    return (
        f"polygraphy run {graph} --onnxrt --trt --strongly-typed --onnx-outputs mark all --trt-outputs mark all "
        f"--input-shapes crops:[1,{height},{width},3] box_scores:[1] --fail-fast"
    )


def _crops(order: Order, bundle: Bundle) -> NDArray[np.uint8]:
    """(N, H, W, 3) uint8: drawn, or the first images of --images, each stretched to a crop."""
    if order.args.images is None:
        return drawn_crops(_VERIFIED_CROPS, bundle.input_hw)
    import cv2

    from qanet.images import read_image

    files = sorted(p for p in Path(order.args.images).glob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not files:
        raise QanetError(f"no image in {order.args.images}", expected=".jpg or .png files", got="none")
    height, width = bundle.input_hw
    if len(files) > _VERIFIED_CROPS:
        note(f"verifying with the first {_VERIFIED_CROPS} of {len(files)} images")
    images = [read_image(file) for file in files[:_VERIFIED_CROPS]]
    return np.stack([cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA) for image in images])


def _deliverable(order: Order) -> str:
    """The precision that counts as delivered: OpenVINO takes the 16-bit type that the CPU has."""
    return deliverable(order.precision, order.outputs) if order.runtime == "openvino" else order.precision


def _left_wider(bundle: Bundle, graph: Path, precision: str, census: Census) -> set[str]:
    """Compute nodes that were left wider on purpose: INT8 by calibration, FP16 where activations would overflow."""
    import onnx

    model = onnx.load(str(graph))
    if precision in ("int8", "fp8"):
        quantized = {out for node in model.graph.node if node.op_type == "DequantizeLinear" for out in node.output}
        fed = {node.name for node in model.graph.node if node.input and node.input[0] in quantized}
        return {layer.name for layer in census.compute} - fed
    if precision == "fp16":
        from qanet.export.graphs.typed import beyond_fp16

        return beyond_fp16(onnx.load_model_from_string(bundle.graph("fp32")), largest_activations(bundle))
    return set()
