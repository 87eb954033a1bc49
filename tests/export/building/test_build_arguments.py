"""The command line of `qanet build`: trtexec's names mean the same, and what is not honoured is refused."""

import pytest

from qanet.errors import QanetError
from qanet.export.backends.tensorrt_options import SHARED_CACHE
from qanet.export.building.command import build_options, build_parser
from qanet.export.building.options import BuildOptions

SIZE = (384, 288)


def options_of(*arguments):
    return build_options(build_parser().parse_args(["model.qanet", *arguments]), SIZE)


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
    options = options_of(*arguments).tensorrt
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
    assert options_of(*arguments).precisions == precisions


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precisions": []}, "no precision given; choose from fp32, fp16, int8, bf16, fp8"),
        ({"precisions": ["fp32", "int4"]}, "unknown precision 'int4'; choose from fp32, fp16, int8, bf16, fp8"),
        ({"runtimes": ["onnx"]}, "unknown runtime 'onnx'; choose from openvino, tensorrt, tensorrt-rtx"),
        ({"tail": "none"}, "unknown tail 'none'; choose from kernel, graph"),
        ({"float_rest": "fp16"}, "unknown float rest 'fp16'; choose from auto, bf16, f32"),
    ],
)
def test_unknown_names(options, message):
    with pytest.raises(QanetError, match=message):
        BuildOptions(**options)


def test_the_default_of_the_command_line_is_that_of_the_library():
    ours, theirs = options_of("--json"), BuildOptions()
    assert tuple(ours.precisions) == tuple(theirs.precisions) and tuple(ours.runtimes) == tuple(theirs.runtimes)
    for name in ("targets", "tail", "float_rest", "tensorrt", "low_memory", "verify", "images", "show_progress"):
        assert getattr(ours, name) == getattr(theirs, name), name
