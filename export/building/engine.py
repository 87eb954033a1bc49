"""Builds the engines of one Order: typed graph -> engine, its census checked, its known answers asked, verified.

An engine is verified against the very graph it was built from, through the runtime's own loader.
"""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.bundle import Bundle
from qanet.errors import QanetError, QanetWarning
from qanet.export.backends.census import BuiltEngine, Census, Report, check_delivered
from qanet.export.backends.tensorrt_options import Options
from qanet.export.building.answers import alone, ask_built
from qanet.export.building.options import Order
from qanet.export.building.timing import choose_float_rest
from qanet.export.building.verify import Arrays, Run, drawn_crops, verify
from qanet.export.graphs.typed import beyond_fp16, builder_graph, largest_activations
from qanet.runtime.answers.verdicts import Difference
from qanet.runtime.backends.openvino import HINT
from qanet.runtime.backends.select import WrongAnswers, open_engine
from qanet.scratch import scratch_folder

_VERIFIED_CROPS = 2


def build_engines(bundle: Bundle, order: Order, report: Report) -> list[BuiltEngine]:
    """Build one engine, or one per batch bucket with low_memory; each answers before it is kept.

    Raises:
        WrongAnswers: an engine that runs here does not give the known answers.
        QanetError: a build fails, is not in the precision asked for, or departs from its graph with `verify`.
    """
    options = order.options
    apart = options.low_memory and order.runtime != "openvino"
    graph = builder_graph(bundle, order.graph, order.runtime)
    engines, rest = [], None
    if order.has_float_rest:
        rest = choose_float_rest(graph, order.outputs, bundle.input_hw, options.float_rest)
        if rest is not None and rest.least_ms:
            report(str(rest))
    for settings in options.tensorrt.one_by_one() if apart else [options.tensorrt]:
        built = build_one(bundle, graph, order, settings, order.outputs, report, rest.hint if rest else None)
        if rest is not None:
            built = replace(built, float_rest=rest.to_json())
        check_delivered(built.census, order.delivered, keep=_left_wider(bundle, graph, order.precision, built.census))
        try:
            verdict = ask_built(bundle, built, order.precision, order.graph)
        except WrongAnswers:
            if options.verify and not order.has_another_graph:
                verify_engine(bundle, order, settings, built, report)  # names the layer that departs
            raise
        report(f"  known answers: {verdict or 'not asked: it is for another machine, and answers there first'}")
        for difference in verify_engine(bundle, order, settings, built, report) if options.verify else ():
            report(f"  {difference.name}: {difference.value:.2g}, limit {difference.limit:g}")
        engines.append(built)
    return engines


def build_one(
    bundle: Bundle,
    graph: bytes,
    order: Order,
    settings: Options,
    outputs: tuple[str, ...] | None,
    report: Report,
    hint: str | None = None,
) -> BuiltEngine:
    """One engine of a typed ONNX graph.

    Args:
        settings: of TensorRT.
        outputs: to keep, None for all.
        hint: of OpenVINO, what floating point computes in.
    """
    name = f"{bundle.name}.{order.graph}.onnx"
    if order.runtime == "openvino":
        from qanet.export.backends import openvino

        return openvino.build(graph, precision=order.precision, outputs=outputs, hint=hint, name=name, report=report)
    asked: dict[str, Any] = {
        "runtime": order.runtime,
        "targets": order.options.targets,
        "options": settings,
        "outputs": outputs,
        "name": name,
        "report": report,
    }
    if order.options.low_memory:
        from qanet.export.backends.child import build_apart

        return build_apart(graph, **asked)
    from tqdm import tqdm

    from qanet.export.backends import tensorrt

    with tqdm(total=0, leave=False, disable=None if order.options.show_progress else True) as bar:
        return tensorrt.build(graph, bar=None if bar.disable else bar, **asked)


def verify_engine(
    bundle: Bundle, order: Order, settings: Options, built: BuiltEngine, report: Report
) -> list[Difference]:
    """Compare an engine that is not in the bundle yet with ONNX Runtime, through the runtime's own loader."""
    device = "cpu" if order.runtime == "openvino" else "cuda"

    def runner(engine: BuiltEngine) -> Run:
        def run(crops: NDArray[np.uint8], boxes: NDArray[np.float32], outputs: tuple[str, ...]) -> Arrays:
            with scratch_folder() as folder:
                scratch = alone(folder, bundle, engine, order.precision)
                with warnings.catch_warnings():  # the reference is its graph, so known answers are not needed
                    warnings.simplefilter("ignore", QanetWarning)
                    opened: Any = open_engine(scratch, device, order.precision, outputs)
                results: Arrays = opened.run(crops, boxes)
                if device == "cuda":
                    opened.close()  # its memory goes back before the next engine is built
                return {name: np.array(results[name]) for name in outputs}

        return run

    def rebuild(graph: bytes, outputs: tuple[str, ...]) -> Run:
        typed = builder_graph(bundle, order.graph, order.runtime, graph)
        hint = built.options.get(HINT)
        return runner(build_one(bundle, typed, order, settings, outputs, lambda line: None, hint))

    reference = bundle.graph("fp32" if order.precision == "bf16" else order.graph)
    crops = _crops(bundle, order.options.images, report)[: built.batches[0][2] if built.batches else None]
    try:
        return verify(reference, runner(built), built.outputs, order.delivered, crops, rebuild)
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


def _crops(bundle: Bundle, images_folder: Path | None, report: Report) -> NDArray[np.uint8]:
    """(N, H, W, 3) uint8: synthetic, or the first images of a folder, each stretched to a crop."""
    if images_folder is None:
        return drawn_crops(_VERIFIED_CROPS, bundle.input_hw)
    import cv2

    from qanet.images import read_image

    files = sorted(p for p in images_folder.glob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not files:
        raise QanetError(f"no image in {images_folder}", expected=".jpg or .png files", got="none")
    height, width = bundle.input_hw
    if len(files) > _VERIFIED_CROPS:
        report(f"verifying with the first {_VERIFIED_CROPS} of {len(files)} images")
    images = [read_image(file) for file in files[:_VERIFIED_CROPS]]
    return np.stack([cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA) for image in images])


def _left_wider(bundle: Bundle, graph: bytes, precision: str, census: Census) -> set[str]:
    """Compute nodes that were left wider on purpose: INT8 by calibration, FP16 where activations would overflow."""
    import onnx

    if precision in ("int8", "fp8"):
        nodes = onnx.load_model_from_string(graph).graph.node
        quantized = {output for node in nodes if node.op_type == "DequantizeLinear" for output in node.output}
        fed = {node.name for node in nodes if node.input and node.input[0] in quantized}
        return {layer.name for layer in census.compute} - fed
    if precision == "fp16":
        return beyond_fp16(onnx.load_model_from_string(bundle.graph("fp32")), largest_activations(bundle))
    return set()
