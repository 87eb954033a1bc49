"""Engines for NVIDIA GPUs: TensorRT 10.3 to 11 and TensorRT-RTX, one path through the API they share.

Every network is strongly typed: its precision is that of the ONNX graph, and no builder flag changes it.
TensorRT builds on the GPU that will run the engine; TensorRT-RTX builds ahead of time for GPU generations by name,
on a machine with no GPU and no driver.
"""

import re
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from qanet.errors import QanetError
from qanet.export.backends.builder_log import BuilderLog, layers_from_inspector, layers_from_log, watched
from qanet.export.backends.census import BuiltEngine, EngineLayer, Report, take_census
from qanet.export.backends.tensorrt_library import cache_file, check_targets, load_library, read_cache, write_cache
from qanet.export.backends.tensorrt_options import AMPERE_PLUS, Options, add_profiles, configure, set_targets
from qanet.export.graphs.source import compute_nodes, input_shapes, load_graph

_MIB = 1 << 20
_NAMES_SHOWN = 5
_DLA_RANGE = re.compile(r"ForeignNode\[(?P<first>.+?)\.\.\.(?P<last>.+?)\]")


def build(
    graph: bytes,
    *,
    runtime: str = "tensorrt-rtx",
    targets: Sequence[str] | None = None,
    options: Options | None = None,
    outputs: Sequence[str] | None = None,
    name: str = "model.onnx",
    report: Report | None = None,
    bar: Any = None,
) -> BuiltEngine:
    """Build an engine from a typed ONNX graph.

    Args:
        graph: contents of an ONNX file with the inputs `crops` uint8 (N, H, W, 3) and `box_scores` float32 (N,).
        runtime: "tensorrt" or "tensorrt-rtx".
        targets: GPU generations such as "sm_86". TensorRT: the one GPU of this machine, which None means.
            TensorRT-RTX: any it knows, ("sm_86", "sm_120") when None. The layers of a plan are the same for all its
            targets: sm_75, for which 1.7 has no INT8 convolutions, takes them from every other target.
        options: how; None for Options().
        outputs: the graph's outputs to keep; None keeps all.
        name: of the graph, for reports and errors.
        report: called with one line at each step.
        bar: a tqdm with a total of 0 that shows the builder's steps.

    Raises:
        QanetError: the library is missing or too old, no driver (TensorRT), a target it cannot build for, an option
            it does not have, a graph that the parser refuses (with the node's name), or a build that fails (with the
            last errors logged).
        KeyboardInterrupt: after Ctrl-C, at the builder's next step.
    """
    started = time.perf_counter()
    say, options = report or (lambda line: None), options or Options()
    trt = load_library(runtime)
    options.check_runtime(trt, runtime)
    targets = check_targets(trt, runtime, targets)
    model = load_graph(graph, outputs, name)
    log = BuilderLog()
    logger = log.logger(trt)  # lives as long as what logs to it: the builder keeps no reference
    say(f"building {name} with {runtime} {trt.__version__} for {', '.join(targets)}")
    data = _plan(trt, runtime, targets, model, name, options, log, logger, bar)
    seconds = time.perf_counter() - started
    say(f"built {len(data) / _MIB:.1f} MiB in {seconds:.1f} s")
    layers = _layers(trt, runtime, logger, log, data, options)
    if options.dla is not None:
        layers = _expand_dla(layers, [node.name for node in model.graph.node])
    return BuiltEngine(
        data=data,
        runtime=runtime,
        version=trt.__version__,
        targets=AMPERE_PLUS if options.hardware_compatibility == "ampere+" else targets,
        census=take_census(layers, compute_nodes(model)),
        seconds=seconds,
        messages=tuple(log.texts(log.WARNING)),
        inputs=tuple(value.name for value in model.graph.input),
        outputs=tuple(value.name for value in model.graph.output),
        options=options.loader_options(),
        batches=tuple(options.batches()),
        stripped=options.strip_weights,
    )


def _plan(
    trt: Any,
    runtime: str,
    targets: tuple[str, ...],
    model: Any,
    name: str,
    options: Options,
    log: BuilderLog,
    logger: Any,
    bar: Any,
) -> bytes:
    """Parse and build; the parser owns the weights the network points at, so both live to the end of this."""
    builder = _builder(trt, logger, log)
    network, parser = _parse(trt, builder, logger, model, name, for_dla=options.dla is not None)
    config = builder.create_builder_config()
    configure(trt, builder, config, options)
    add_profiles(builder, config, input_shapes(model), options.batches())
    if runtime == "tensorrt-rtx":
        set_targets(trt, config, targets)
    cache = cache_file(trt, runtime, targets[0], options, log)
    if cache is not None:
        read_cache(config, cache, log)
    plan = None
    try:
        with watched(trt, config, bar):
            plan = builder.build_serialized_network(network, config)
    finally:
        if plan is None and runtime == "tensorrt-rtx":
            _forget_failed_build(trt, builder, targets)
    if plan is None:
        errors = log.last_errors()
        advice = "raise --workspace, lower --max-batch, or --low-memory" if "OutOfMemory" in errors else None
        raise QanetError(f"{runtime} could not build {name} for {', '.join(targets)}: {errors}", next_command=advice)
    if cache is not None:
        write_cache(config, cache)
    return bytes(plan)


def _forget_failed_build(trt: Any, builder: Any, targets: tuple[str, ...]) -> None:
    """Build one ReLU, in 0.03 s: the first build after one that failed is for the target that failed.

    So does TensorRT-RTX 1.7, in every thread of the process: after FP32 for sm_75 had failed, INT8 for sm_86 came out
    in FP32.
    """
    network, config = builder.create_network(0), builder.create_builder_config()
    relu = network.add_activation(network.add_input("x", trt.float32, (8,)), trt.ActivationType.RELU)
    network.mark_output(relu.get_output(0))
    set_targets(trt, config, targets)
    builder.build_serialized_network(network, config)


def _builder(trt: Any, logger: Any, log: BuilderLog) -> Any:
    try:
        return trt.Builder(logger)
    except (TypeError, RuntimeError) as error:  # the factory returned null: no driver, or one older than the library
        raise QanetError("TensorRT cannot start", got=log.last_errors(), next_command="nvidia-smi") from error


def _parse(trt: Any, builder: Any, logger: Any, model: Any, name: str, for_dla: bool) -> tuple[Any, Any]:
    """Return the network and the parser that owns its weights."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)  # opt-in in 10, implied since 11
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    parser = trt.OnnxParser(network, logger)
    adjust = getattr(trt.OnnxParserFlag, "ADJUST_FOR_DLA", None)  # shapes that a DLA takes, since 10.16
    if for_dla and adjust is not None:
        parser.set_flag(adjust)
    if parser.parse(model.SerializeToString()):
        return network, parser
    if not parser.num_errors:
        raise QanetError(f"{name} cannot be parsed", got="no error from the parser")
    error = parser.get_error(0)
    reasons = [line for line in error.desc().splitlines() if "catchCudaError" not in line]
    raise QanetError(
        f"{name} cannot be parsed at node {error.node()} {error.node_name()!r} ({error.node_operator()})",
        expected="operators and types that TensorRT takes",
        got=" ".join(reasons),
    )


def _layers(trt: Any, runtime: str, logger: Any, log: BuilderLog, data: bytes, options: Options) -> list[EngineLayer]:
    """The inspector's layers where the engine can be loaded, else those the builder printed."""
    layers: list[EngineLayer] = []
    if runtime == "tensorrt":
        loader = trt.Runtime(logger)
        loader.engine_host_code_allowed = options.version_compatible  # it was built a moment ago, by this process
        engine = loader.deserialize_cuda_engine(data)
        if engine is not None:
            inspector = engine.create_engine_inspector()
            layers = layers_from_inspector(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
    layers = layers or layers_from_log(text for _, text in log.entries)
    if not layers:
        raise QanetError(f"{runtime} {trt.__version__} reports no layers of its engine, so its precision is unknown")
    return layers


def _expand_dla(layers: list[EngineLayer], order: list[str]) -> list[EngineLayer]:
    """Layers of a DLA with every ONNX node they hold: the library names the first and the last of a run of them.

    Raises:
        QanetError: nothing runs on the DLA, which the library does not report as an error.
    """
    found, expanded = 0, []
    for layer in layers:
        match = _DLA_RANGE.search(layer.name)
        if match and match["first"] in order and match["last"] in order:
            run = order[order.index(match["first"]) : order.index(match["last"]) + 1]
            layer = replace(layer, nodes=tuple(run), computes=True, product="")
            found += 1
        expanded.append(layer)
    if not found:
        raise QanetError("DLA was asked for and every layer fell back to the GPU", expected="layers on the DLA", got=0)
    return expanded


def refit(plan: bytes, graph: bytes, outputs: tuple[str, ...] | None, name: str = "model.onnx") -> bytes:
    """Put the weights of an ONNX graph into a plan that was built without them.

    Args:
        plan: built with `strip_weights` for this GPU by this version of TensorRT.
        graph: contents of the ONNX file it was built from.
        outputs: those it was built with.
        name: of the graph, for errors.
    Raises:
        QanetError: TensorRT is missing, refuses the plan, or the graph has not all its weights.
    """
    trt = load_library("tensorrt")
    model = load_graph(graph, outputs, name)
    log = BuilderLog()
    logger = log.logger(trt)
    runtime = trt.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise QanetError("TensorRT refuses the engine without weights", got=log.last_errors())
    refitter = trt.Refitter(engine, logger)
    parser_refitter = trt.OnnxParserRefitter(refitter, logger)
    if not parser_refitter.refit_from_bytes(model.SerializeToString()):
        raise QanetError(f"the weights of {name} do not fit the engine", got=log.last_errors())
    missing = refitter.get_missing_weights()
    if missing:
        shown = ", ".join(missing[:_NAMES_SHOWN])
        raise QanetError(f"{name} lacks weights of the engine", expected=f"{len(missing)} more", got=f"no {shown}")
    if not refitter.refit_cuda_engine():
        raise QanetError("TensorRT could not refit the engine", got=log.last_errors())
    serialization = engine.create_serialization_config()
    serialization.clear_flag(trt.SerializationFlag.EXCLUDE_WEIGHTS)
    whole = engine.serialize_with_config(serialization)
    if whole is None:
        raise QanetError("TensorRT could not write the refitted engine", got=log.last_errors())
    return bytes(whole)
