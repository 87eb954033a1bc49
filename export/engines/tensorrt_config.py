"""Options and targets -> an IBuilderConfig with its optimisation profiles."""

from typing import Any

from qanet.errors import QanetError
from qanet.export.engines.source_graph import CROPS
from qanet.export.engines.tensorrt_options import HARDWARE_LEVELS, Options

_MIB = 1 << 20


def configure(trt: Any, builder: Any, config: Any, options: Options) -> None:
    """Set what `options` ask for.

    Raises:
        QanetError: a DLA core that this machine does not have.
    """
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib * _MIB)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # the census needs types and ONNX origins
    if options.tactic_memory_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.TACTIC_DRAM, options.tactic_memory_mib * _MIB)
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if options.few_tactics:
        builder.max_threads = 1
        config.set_tactic_sources(1 << int(trt.TacticSource.EDGE_MASK_CONVOLUTIONS))
    if not options.tf32:
        config.clear_flag(trt.BuilderFlag.TF32)  # it is set by default
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options.hardware_compatibility != "none":
        level = getattr(trt.HardwareCompatibilityLevel, HARDWARE_LEVELS[options.hardware_compatibility])
        config.hardware_compatibility_level = level
    if options.strip_weights:
        config.set_flag(trt.BuilderFlag.STRIP_PLAN)
    if options.dla is not None:
        _run_on_dla(trt, builder, config, options.dla)


def _run_on_dla(trt: Any, builder: Any, config: Any, core: int) -> None:
    if core >= builder.num_DLA_cores:
        raise QanetError("no such DLA core", expected=f"one of the {builder.num_DLA_cores} here", got=core)
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = core
    config.set_flag(trt.BuilderFlag.GPU_FALLBACK)  # resizing and the FP32 tail are beyond a DLA


def add_profiles(
    builder: Any, config: Any, shapes: dict[str, tuple[int, ...]], batches: list[tuple[int, int, int]]
) -> None:
    """One optimisation profile for each (min, opt, max) batch; `shapes` are the inputs' without the batch."""
    for batch in batches:
        profile = builder.create_optimization_profile()
        for name, shape in shapes.items():
            profile.set_shape(name, *((size, *shape) for size in batch))
        if config.add_optimization_profile(profile) < 0:
            raise QanetError("TensorRT refused an optimisation profile", got=f"batch {batch}, {CROPS} {shapes[CROPS]}")


def set_targets(trt: Any, config: Any, targets: tuple[str, ...]) -> None:
    """GPU generations a plan of TensorRT-RTX is compiled for."""
    config.num_compute_capabilities = len(targets)
    for index, target in enumerate(targets):
        capability = getattr(trt.ComputeCapability, f"SM{target.removeprefix('sm_')}")
        if not config.set_compute_capability(capability, index):
            raise QanetError(f"TensorRT-RTX {trt.__version__} refused the target {target}")
