"""Options of a TensorRT engine, checked before anything is built, and the IBuilderConfig that they become."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qanet.errors import QanetError
from qanet.export.graphs.source import CROPS

BUCKETS = (1, 2, 4, 8, 16)  # static batch sizes: a wide dynamic profile is slow at batch 1 (NVIDIA/TensorRT#976)
SHARED_CACHE = "shared"
HARDWARE_LEVELS = {"none": "NONE", "ampere+": "AMPERE_PLUS", "same_cc": "SAME_COMPUTE_CAPABILITY"}
AMPERE_PLUS = ("sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_103", "sm_120", "sm_121")  # without Jetsons
_MIB = 1 << 20
_LOW_MEMORY_WORKSPACE_MIB, _LOW_MEMORY_TACTIC_MIB, _LOW_MEMORY_LEVEL, _LOW_MEMORY_BATCH = 256, 512, 2, 4


@dataclass(frozen=True)
class Options:
    """How to build an engine; the precision is that of the graph and no option.

    Attributes:
        max_batch: the most crops in one call.
        static_buckets: one profile for each batch of BUCKETS up to max_batch, instead of one from 1 to max_batch. Not
            for INT8 with TensorRT-RTX 1.7: the plan of a network of depthwise convolutions grew from 14 to 520 MiB.
        profile: (min, opt, max) batch of a single profile, in place of those of max_batch and static_buckets.
        workspace_mib: the most scratch memory (MiB) a layer may use; to TensorRT-RTX the whole network is one layer.
        tactic_memory_mib: the most memory (MiB) the builder may take to time one kernel; None leaves the library's.
        optimization_level: 0 (fastest build) to 5; None leaves the library's own, 3.
        timing_cache: file of measured kernel times, read if it exists and written back; SHARED_CACHE for one that all
            builds of this version, GPU and these options share; TensorRT-RTX has none.
        tf32: let FP32 layers use TF32 tensor cores, with a mantissa of 10 bits. Off: FP32 is FP32.
        version_compatible: run on later versions of TensorRT too (10 on 11, never the reverse); the engine then brings
            machine code of its own.
        hardware_compatibility: a key of HARDWARE_LEVELS.
        strip_weights: leave the weights out; `refit` puts them back from the graph.
        dla: number of the deep-learning accelerator to run on, with the GPU for layers that it cannot run; None for
            the GPU alone.
        few_tactics: neither compile kernels while building nor load cuBLAS and cuDNN to try theirs.
    """

    max_batch: int = 16
    static_buckets: bool = False
    profile: tuple[int, int, int] | None = None
    workspace_mib: int = 4096
    tactic_memory_mib: int | None = None
    optimization_level: int | None = None
    timing_cache: str | Path | None = None
    tf32: bool = False
    version_compatible: bool = False
    hardware_compatibility: str = "none"
    strip_weights: bool = False
    dla: int | None = None
    few_tactics: bool = False

    def __post_init__(self) -> None:
        level, profile = self.optimization_level, self.profile
        wrong = (
            (self.max_batch < 1, "max_batch is too small", "1 or more", self.max_batch),
            (self.workspace_mib < 1, "the workspace is too small", "1 MiB or more", self.workspace_mib),
            (level is not None and not 0 <= level <= 5, "no such builder optimization level", "0 to 5", level),
            (
                profile is not None and not 1 <= profile[0] <= profile[1] <= profile[2],
                "the batches of a profile are not in order",
                "1 <= min <= opt <= max",
                profile,
            ),
            (
                self.hardware_compatibility not in HARDWARE_LEVELS,
                "no such hardware compatibility level",
                f"one of {', '.join(HARDWARE_LEVELS)}",
                self.hardware_compatibility,
            ),
            (self.dla is not None and self.dla < 0, "no such DLA core", "0 or more", self.dla),
        )
        for is_wrong, fact, expected, got in wrong:
            if is_wrong:
                raise QanetError(fact, expected=expected, got=got)

    def batches(self) -> list[tuple[int, int, int]]:
        """(min, opt, max) batch of each optimisation profile."""
        if self.profile is not None:
            return [self.profile]
        if self.dla is not None:  # it runs one shape
            return [(self.max_batch,) * 3]
        if not self.static_buckets:
            return [(1, min(4, self.max_batch), self.max_batch)]
        sizes = sorted({batch for batch in BUCKETS if batch < self.max_batch} | {self.max_batch})
        return [(size, size, size) for size in sizes]

    def one_by_one(self) -> list["Options"]:
        """Options of one engine for each profile."""
        return [replace(self, profile=batch) for batch in self.batches()]

    def check_runtime(self, trt: Any, runtime: str) -> None:
        """QanetError for an option that this library would ignore or does not have."""
        name, release = f"{runtime} {trt.__version__}", tuple(int(n) for n in trt.__version__.split(".")[:3])
        is_rtx = runtime == "tensorrt-rtx"
        level = HARDWARE_LEVELS[self.hardware_compatibility]
        has_dla = not is_rtx and (release < (10, 8) or release >= (11, 4, 1))
        wrong = (
            (self.version_compatible and is_rtx, "version-compatible engines", "build again after an upgrade"),
            (self.strip_weights and is_rtx, "engines without weights", "leave --strip-weights out"),
            (level != "NONE" and is_rtx, "hardware compatibility levels", "name every GPU with --target"),
            (
                not is_rtx and not hasattr(trt.HardwareCompatibilityLevel, level),
                f"hardware compatibility level {self.hardware_compatibility}",
                "upgrade TensorRT",
            ),
            (
                self.dla is not None and not has_dla,
                "DLA",
                "TensorRT 10.3 to 10.7, or 11.4.1 and later, on a Jetson that has one",
            ),
        )
        for is_wrong, what, advice in wrong:
            if is_wrong:
                raise QanetError(f"{name} has no {what}", next_command=advice)

    def loader_options(self) -> dict[str, str]:
        """Properties that a loader must set to run the engine."""
        return {"engine_host_code_allowed": "true"} if self.version_compatible else {}


def low_memory(options: Options, *, given: frozenset[str] = frozenset()) -> Options:
    """Options for machines whose CPU and GPU share a few GiB; those named in `given` keep their values.

    The builder's trials, not the network, make the peak of a build. So at most 256 MiB of scratch memory per layer,
    512 MiB for timing a kernel (on a Jetson that is the system's memory), level 2, the highest that compiles no
    kernels while building, no libraries of kernels loaded for trial, and batches up to 4.
    """
    low: dict[str, Any] = {
        "workspace_mib": _LOW_MEMORY_WORKSPACE_MIB,
        "tactic_memory_mib": _LOW_MEMORY_TACTIC_MIB,
        "optimization_level": _LOW_MEMORY_LEVEL,
        "few_tactics": True,
        "max_batch": _LOW_MEMORY_BATCH,
    }
    return replace(options, **{name: value for name, value in low.items() if name not in given})


def configure(trt: Any, builder: Any, config: Any, options: Options) -> None:
    """Set the config's limits, flags and device as `options` say.

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
