"""The command line of `qanet build`: trtexec's names mean the same, and what is not honoured is refused."""

import pytest

from qanet.errors import QanetError
from qanet.export.building.arguments import build_parser, engine_options, precisions_of, runtimes_of
from qanet.export.engines.tensorrt_options import SHARED_CACHE

SIZE = (384, 288)


def options_of(*arguments):
    return engine_options(build_parser().parse_args(["model.qanet", *arguments]), SIZE)


@pytest.mark.parametrize(
    ("arguments", "fields"),
    [
        ((), {"max_batch": 16, "workspace_mib": 4096, "timing_cache": SHARED_CACHE, "optimization_level": None}),
        (("--memPoolSize=workspace:2048",), {"workspace_mib": 2048}),
        (("--memPoolSize=workspace:1.5G",), {"workspace_mib": 1536}),
        (("--memPoolSize=workspace:3072K",), {"workspace_mib": 3}),
        (("--timingCacheFile=a.cache",), {"timing_cache": "a.cache"}),
        (("--disableTimingCache",), {"timing_cache": None}),
        (("--builderOptimizationLevel=5",), {"optimization_level": 5}),
        (("--versionCompatible",), {"version_compatible": True}),
        (("--hardwareCompatibilityLevel=AMPERE+",), {"hardware_compatibility": "ampere+"}),
        (("--hardwareCompatibilityLevel=same_cc",), {"hardware_compatibility": "same_cc"}),
        (("--stripWeights",), {"strip_weights": True}),
        (("--useDLACore=1", "--allowGPUFallback"), {"dla": 1}),
        (("--profilingVerbosity=detailed", "--stronglyTyped"), {"profile": None}),
        (("--maxShapes=crops:8x384x288x3",), {"profile": (8, 8, 8)}),
        (
            (
                "--minShapes=crops:1x384x288x3,box_scores:1",
                "--optShapes=crops:2x384x288x3",
                "--maxShapes=crops:8x384x288x3",
            ),
            {"profile": (1, 2, 8)},
        ),
        (("--low-memory",), {"workspace_mib": 256, "max_batch": 4, "few_tactics": True, "optimization_level": 2}),
        (("--low-memory", "--workspace=512", "--max-batch=1"), {"workspace_mib": 512, "max_batch": 1}),
        (("--low-memory", "--builderOptimizationLevel=0"), {"optimization_level": 0}),
    ],
)
def test_names_of_both_worlds(arguments, fields):
    options = options_of(*arguments)
    assert {name: getattr(options, name) for name in fields} == fields


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--memPoolSize=dlaSRAM:1",), "bad --memPoolSize .expected workspace:SIZE"),
        (("--memPoolSize=workspace",), "bad --memPoolSize"),
        (("--memPoolSize=workspace:1", "--workspace=2"), "workspace is given twice"),
        (("--profilingVerbosity=none",), "invalid choice: 'none'"),
        (("--timingCacheFile=a", "--no-timing-cache"), "given and switched off"),
        (("--maxShapes=crops:8x512x384x3",), "bad shape .expected crops:Nx384x288x3"),
        (("--maxShapes=input:8x384x288x3",), "bad shape"),
        (("--maxShapes=crops:8x384x288x3,box_scores:4",), "differ in number"),
        (("--maxShapes=crops:8x384x288x3", "--max-batch=2"), "batches are given twice"),
        (("--minShapes=crops:8x384x288x3", "--maxShapes=crops:2x384x288x3"), "not in order"),
        (("--builderOptimizationLevel=9",), "0 to 5"),
        (("--hardwareCompatibilityLevel=hopper",), "no such hardware compatibility level"),
        (("--strip-weights", "--verify"), "cannot be verified"),
        (("--versionCompatible", "--verify"), "machine code of its own"),
        (("--calib=cache",), "unrecognized arguments: --calib"),
        (("--sparsity=enable",), "unrecognized arguments"),
    ],
)
def test_what_is_not_honoured_is_refused(arguments, message):
    with pytest.raises(QanetError, match=message):
        options_of(*arguments)


@pytest.mark.parametrize(
    ("arguments", "precisions"),
    [
        ((), ["fp32", "fp16", "int8"]),
        (("--fp16",), ["fp16"]),
        (("--int8",), ["int8"]),
        (("--best",), ["int8"]),
        (("--bf16",), ["bf16"]),
        (("--fp8",), ["fp8"]),
        (("--precision", "int8, fp16,int8"), ["int8", "fp16"]),
    ],
)
def test_precisions_and_their_sugar(arguments, precisions):
    assert precisions_of(build_parser().parse_args(["m", *arguments]).precision) == precisions


def test_unknown_names():
    with pytest.raises(QanetError, match="no precision given"):
        precisions_of(" , ")
    with pytest.raises(QanetError, match="unknown runtime 'onnx'"):
        runtimes_of("onnx")
