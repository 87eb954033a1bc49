"""Engines for NVIDIA GPUs: TensorRT 10.3 to 11 and TensorRT-RTX, one path through the API they share.

Every network is strongly typed: its precision is what stands in the ONNX graph, and no builder flag changes it.
TensorRT builds on the GPU that will run the engine; TensorRT-RTX builds ahead of time for GPU generations by name,
on a machine with no GPU and no driver.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qanet.errors import QanetError
from qanet.export.engines.builder_log import BuilderLog, layers_from_inspector, layers_from_log
from qanet.export.engines.built import BuiltEngine, Report
from qanet.export.engines.census import EngineLayer, take_census
from qanet.export.engines.multiply_adds import compute_nodes
from qanet.export.engines.source_graph import CROPS, input_shapes, load_graph
from qanet.export.engines.tensorrt_library import check_targets, load_library

BUCKETS = (1, 2, 4, 8, 16)  # static batch sizes: a wide dynamic profile is slow at batch 1 (NVIDIA/TensorRT#976)
_MIB = 1 << 20


def build(
    onnx_path: str | Path,
    *,
    runtime: str = "tensorrt-rtx",
    targets: Sequence[str] | None = None,
    max_batch: int = 16,
    static_buckets: bool = False,
    workspace_mib: int = 4096,
    optimization_level: int | None = None,
    timing_cache: str | Path | None = None,
    tf32: bool = False,
    outputs: Sequence[str] | None = None,
    report: Report | None = None,
) -> BuiltEngine:
    """Build an engine from a typed ONNX graph.

    Args:
        onnx_path: graph with the inputs `crops` uint8 (N, H, W, 3) and `box_scores` float32 (N,).
        runtime: "tensorrt" or "tensorrt-rtx".
        targets: GPU generations such as "sm_86". TensorRT: the one GPU of this machine, which None means.
            TensorRT-RTX: any it knows, ("sm_86", "sm_120") when None. The layers of a plan are the same for all its
            targets: sm_75, for which 1.7 has no INT8 convolutions, takes them from every target beside it.
        max_batch: the most crops in one call.
        static_buckets: one profile for each batch of BUCKETS up to max_batch, instead of one from 1 to max_batch. Not
            for INT8 with TensorRT-RTX 1.7: the plan of a network of depthwise convolutions grew from 14 to 520 MiB.
        workspace_mib: the most scratch memory (MiB) a layer may use; to TensorRT-RTX the whole network is one layer.
        optimization_level: 0 (fastest build) to 5; None leaves the library's own, 3.
        timing_cache: file of measured kernel times, read if it exists and written back; TensorRT-RTX has none.
        tf32: let FP32 layers use TF32 tensor cores, with a mantissa of 10 bits. Off: FP32 is FP32.
        outputs: the graph's outputs to keep; None keeps all.
        report: called with one line at each step.

    Raises:
        QanetError: the library is missing or too old, no driver (TensorRT), a target it cannot build for, a graph the
            parser refuses (the node is named), or a build that fails (with the last errors logged).
    """
    started = time.perf_counter()
    say = report or (lambda line: None)
    options = _Options(max_batch, static_buckets, workspace_mib, optimization_level, timing_cache, tf32)
    trt = load_library(runtime)
    targets = check_targets(trt, runtime, targets)
    model = load_graph(onnx_path, outputs)
    log = BuilderLog()
    logger = log.logger(trt)  # lives as long as what logs to it: the builder keeps no reference
    say(f"building {Path(onnx_path).name} with {runtime} {trt.__version__} for {', '.join(targets)}")
    data = _plan(trt, runtime, targets, model, Path(onnx_path).name, options, log, logger)
    seconds = time.perf_counter() - started
    say(f"built {len(data) / _MIB:.1f} MiB in {seconds:.1f} s")
    return BuiltEngine(
        data=data,
        runtime=runtime,
        version=trt.__version__,
        targets=targets,
        census=take_census(_layers(trt, runtime, logger, log, data), compute_nodes(model)),
        seconds=seconds,
        messages=tuple(log.texts(log.WARNING)),
        inputs=tuple(value.name for value in model.graph.input),
        outputs=tuple(value.name for value in model.graph.output),
    )


@dataclass(frozen=True)
class _Options:
    """The arguments of build of the same names, checked."""

    max_batch: int
    static_buckets: bool
    workspace_mib: int
    optimization_level: int | None
    timing_cache: str | Path | None
    tf32: bool

    def __post_init__(self) -> None:
        if self.max_batch < 1:
            raise QanetError("max_batch is too small", expected="1 or more", got=self.max_batch)
        if self.optimization_level is not None and not 0 <= self.optimization_level <= 5:
            raise QanetError("no such builder optimization level", expected="0 to 5", got=self.optimization_level)

    def batches(self) -> list[tuple[int, int, int]]:
        """(min, opt, max) batch of each optimisation profile."""
        if not self.static_buckets:
            return [(1, min(4, self.max_batch), self.max_batch)]
        sizes = sorted({batch for batch in BUCKETS if batch < self.max_batch} | {self.max_batch})
        return [(size, size, size) for size in sizes]


def _plan(
    trt: Any, runtime: str, targets: tuple[str, ...], model: Any, name: str, options: _Options, log: BuilderLog,
    logger: Any,
) -> bytes:  # fmt: skip
    """Parse and build; the parser owns the weights the network points at, so both live to the end of this."""
    builder = _builder(trt, logger, log)
    network, parser = _parse(trt, builder, logger, model, name)
    config = builder.create_builder_config()
    _configure(trt, config, options)
    _add_profiles(builder, config, input_shapes(model), options.batches())
    if runtime == "tensorrt-rtx":
        _set_targets(trt, config, targets)
    if options.timing_cache is not None:
        _read_timing_cache(config, runtime, Path(options.timing_cache), log)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        errors = log.last_errors()
        advice = "raise workspace_mib or lower max_batch" if "OutOfMemory" in errors else None
        raise QanetError(f"{runtime} could not build {name} for {', '.join(targets)}: {errors}", next_command=advice)
    if runtime == "tensorrt" and options.timing_cache is not None:
        Path(options.timing_cache).write_bytes(bytes(config.get_timing_cache().serialize()))
    return bytes(plan)


def _builder(trt: Any, logger: Any, log: BuilderLog) -> Any:
    try:
        return trt.Builder(logger)
    except (TypeError, RuntimeError) as error:  # the factory returned null: no driver, or one older than the library
        raise QanetError("TensorRT cannot start", got=log.last_errors(), next_command="nvidia-smi") from error


def _parse(trt: Any, builder: Any, logger: Any, model: Any, name: str) -> tuple[Any, Any]:
    """Return the network and the parser that owns its weights."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)  # opt-in in 10, implied since 11
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    parser = trt.OnnxParser(network, logger)
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


def _configure(trt: Any, config: Any, options: _Options) -> None:
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib * _MIB)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # the census needs types and ONNX origins
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if not options.tf32:
        config.clear_flag(trt.BuilderFlag.TF32)  # it is set by default


def _add_profiles(
    builder: Any, config: Any, shapes: dict[str, tuple[int, ...]], batches: list[tuple[int, int, int]]
) -> None:
    for batch in batches:
        profile = builder.create_optimization_profile()
        for name, shape in shapes.items():
            profile.set_shape(name, *((size, *shape) for size in batch))
        if config.add_optimization_profile(profile) < 0:
            raise QanetError("TensorRT refused an optimisation profile", got=f"batch {batch}, {CROPS} {shapes[CROPS]}")


def _set_targets(trt: Any, config: Any, targets: tuple[str, ...]) -> None:
    config.num_compute_capabilities = len(targets)
    for index, target in enumerate(targets):
        capability = getattr(trt.ComputeCapability, f"SM{target.removeprefix('sm_')}")
        if not config.set_compute_capability(capability, index):
            raise QanetError(f"TensorRT-RTX {trt.__version__} refused the target {target}")


def _read_timing_cache(config: Any, runtime: str, file: Path, log: BuilderLog) -> None:
    if runtime == "tensorrt-rtx":
        log.warn("TensorRT-RTX has no timing cache: it chooses kernels where the engine runs")
        return
    cache = config.create_timing_cache(file.read_bytes() if file.is_file() else b"")
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        log.warn(f"{file.name} was measured on another GPU or TensorRT and starts anew")
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)


def _layers(trt: Any, runtime: str, logger: Any, log: BuilderLog, data: bytes) -> list[EngineLayer]:
    """The inspector's layers where the engine can be loaded, else those the builder printed."""
    layers: list[EngineLayer] = []
    if runtime == "tensorrt":
        loader = trt.Runtime(logger)
        engine = loader.deserialize_cuda_engine(data)
        if engine is not None:
            inspector = engine.create_engine_inspector()
            layers = layers_from_inspector(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
    layers = layers or layers_from_log(text for _, text in log.entries)
    if not layers:
        raise QanetError(
            f"{runtime} {trt.__version__} does not say what its engine is made of, so its precision is unknown"
        )
    return layers
