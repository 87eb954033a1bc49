"""The options of `qanet build`, by its own names and by those of trtexec, and what they mean to a builder."""

import argparse
import re
from collections.abc import Sequence
from typing import Any

from qanet.bundle import OPTIONAL_PRECISIONS, PRECISIONS
from qanet.commandline import command_parser
from qanet.errors import QanetError
from qanet.export.engines.tensorrt_options import HARDWARE_LEVELS, SHARED_CACHE, Options, low_memory

FLOAT_RESTS = ("auto", "bf16", "f32")
RUNTIMES = ("openvino", "tensorrt", "tensorrt-rtx")
_UNITS = {"": 1.0, "M": 1.0, "G": 1024.0, "K": 1 / 1024, "B": 1 / (1 << 20)}  # -> MiB, as trtexec reads them
_SHAPE = re.compile(r"^(?P<name>\w+):(?P<axes>\d+(x\d+)*)$")
_NOT_GIVEN: Any = None


def build_parser() -> argparse.ArgumentParser:
    """The parser; numbers that low-memory mode lowers have no default here, so that a given one is known."""
    parser = command_parser("build", "Write typed graphs and build engines; fails when a precision is not delivered.")
    add = parser.add_argument
    add("model", metavar="NAME.qanet")
    add("--precision", default="fp32,fp16,int8", help="comma-separated (fp32,fp16,int8; also bf16, fp8)")
    for precision in ("fp16", "bf16", "int8", "fp8"):
        add(f"--{precision}", dest="precision", action="store_const", const=precision, help="sugar for --precision")
    add("--best", dest="precision", action="store_const", const="int8", help="int8 with 16 bits for the rest")
    add("--runtime", default="auto", help="openvino, tensorrt, tensorrt-rtx; auto: what is here")
    add("--target", metavar="SM", help="GPUs, e.g. sm_86,sm_120 (TensorRT-RTX: none needed here)")
    add(
        "--float-rest",
        default="auto",
        choices=FLOAT_RESTS,
        help="what an INT8 engine of OpenVINO computes the rest in; auto: the faster, measured here",
    )
    add("--tail", default="kernel", choices=("kernel", "graph"), help="outputs the engine keeps")
    add("--max-batch", type=int, metavar="N", help="most crops in one call (16)")
    add("--static-buckets", action="store_true", help="one profile a batch size 1, 2, 4, 8, 16")
    add("--workspace", type=int, metavar="MiB", help="scratch memory a layer may use (4096)")
    add("--low-memory", action="store_true", help="for Jetsons: one bucket at a time, in a process of its own")
    add("--builder-optimization-level", "--builderOptimizationLevel", type=int, metavar="0..5")
    add("--timing-cache-file", "--timingCacheFile", metavar="FILE", help="default: one that all builds share")
    add("--no-timing-cache", "--disableTimingCache", action="store_true", help="neither read nor write one")
    add("--version-compatible", "--versionCompatible", action="store_true", help="run on later TensorRT too")
    add(
        "--hardware-compatibility",
        "--hardwareCompatibilityLevel",
        default="none",
        metavar="LEVEL",
        help=", ".join(HARDWARE_LEVELS),
    )
    add("--strip-weights", "--stripWeights", action="store_true", help="engines without weights, for --refit")
    add("--refit", action="store_true", help="put the weights into stripped engines, and build nothing")
    add("--dla", "--useDLACore", type=int, metavar="CORE", help="run on a DLA, the GPU taking what it cannot")
    add("--tf32", action="store_true", help="let FP32 layers use TF32")
    add("--verify", action="store_true", help="compare each engine with ONNX Runtime before it is kept")
    add("--images", metavar="DIR", help="crops of people to verify with; default: drawn ones")
    add("--lock-timeout", type=float, default=600, metavar="S", help="how long to wait for another build (600)")
    add("--output", metavar="NAME.qanet", help="build into a copy")
    _add_trtexec_names(parser)
    return parser


def _add_trtexec_names(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("trtexec's names, for what is called otherwise above")
    group.add_argument("--saveEngine", metavar="FILE", help="also write the engine here (one runtime, one precision)")
    group.add_argument("--memPoolSize", metavar="POOL:SIZE", help="workspace:2048, in MiB")
    group.add_argument("--profilingVerbosity", choices=("detailed",), default="detailed", help="the census needs it")
    group.add_argument("--allowGPUFallback", action="store_true", help="always so with --dla")
    group.add_argument("--stronglyTyped", action="store_true", help="always so")
    for name in ("minShapes", "optShapes", "maxShapes"):
        group.add_argument(f"--{name}", metavar="crops:NxHxWx3", help="the batches of one dynamic profile")


def engine_options(args: argparse.Namespace, input_hw: tuple[int, int]) -> Options:
    """What the arguments say of an engine.

    Args:
        args: of `build_parser`.
        input_hw: crop size (H, W) pixels, which shapes must repeat.
    Raises:
        QanetError: a value out of range, or two arguments that contradict each other.
    """
    workspace = args.workspace
    if args.memPoolSize is not None:
        if workspace is not None:
            raise QanetError("the workspace is given twice", expected="--workspace or --memPoolSize", got="both")
        workspace = _workspace_mib(args.memPoolSize)
    if args.no_timing_cache and args.timing_cache_file:
        raise QanetError("a timing cache is given and switched off", expected="one of the two", got="both")
    if args.strip_weights and args.verify:
        raise QanetError("an engine without weights cannot be verified", next_command="leave --verify out")
    if args.version_compatible and args.verify:
        raise QanetError(
            "a version-compatible engine runs machine code of its own, which --verify does not allow",
            next_command="verify one that is not version-compatible",
        )
    cache = None if args.no_timing_cache else args.timing_cache_file or SHARED_CACHE
    given = {
        "workspace_mib": workspace,
        "max_batch": args.max_batch,
        "profile": _profile(args, input_hw),
        "optimization_level": args.builder_optimization_level,
    }
    given = {name: value for name, value in given.items() if value is not _NOT_GIVEN}
    options = Options(
        static_buckets=args.static_buckets,
        timing_cache=cache,
        tf32=args.tf32,
        version_compatible=args.version_compatible,
        hardware_compatibility=args.hardware_compatibility.lower(),
        strip_weights=args.strip_weights,
        dla=args.dla,
        **given,
    )
    return low_memory(options, given=frozenset(given)) if args.low_memory else options


def precisions_of(text: str) -> list[str]:
    """The precisions named in --precision."""
    return chosen(text, (*PRECISIONS, *OPTIONAL_PRECISIONS), "precision")


def runtimes_of(text: str) -> list[str]:
    """The runtimes named in --runtime; auto: TensorRT where its module is, else OpenVINO."""
    if text != "auto":
        return chosen(text, RUNTIMES, "runtime")
    import importlib.util

    return ["tensorrt"] if importlib.util.find_spec("tensorrt") else ["openvino"]


def chosen(text: str, known: Sequence[str], what: str) -> list[str]:
    """Comma-separated names, each once; QanetError for one that is not known."""
    names = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for name in names:
        if name not in known:
            raise QanetError(f"unknown {what} {name!r}", expected=f"of {', '.join(known)}", got=text)
    if not names:
        raise QanetError(f"no {what} given", expected=f"one or more of {', '.join(known)}", got=repr(text))
    return names


def _workspace_mib(text: str) -> int:
    """trtexec's `workspace:2048`; other pools are not honoured, so they are refused."""
    match = re.fullmatch(r"workspace:(\d+(?:\.\d+)?)([BKMG]?)", text)
    if not match:
        raise QanetError("bad --memPoolSize", expected="workspace:SIZE, in MiB or with B, K, M or G", got=text)
    return max(1, int(float(match[1]) * _UNITS[match[2]]))


def _profile(args: argparse.Namespace, input_hw: tuple[int, int]) -> tuple[int, int, int] | None:
    """(min, opt, max) batch out of trtexec's shapes; those not given follow from the others, as there."""
    low, middle, high = (_batch(text, input_hw) for text in (args.minShapes, args.optShapes, args.maxShapes))
    if low is middle is high is None:
        return None
    if args.max_batch is not None or args.static_buckets:
        raise QanetError("batches are given twice", expected="shapes, or --max-batch and --static-buckets", got="both")
    middle = middle or high or low
    assert middle is not None
    return low or middle, middle, high or middle


def _batch(text: str | None, input_hw: tuple[int, int]) -> int | None:
    if text is None:
        return None
    batches = set()
    for part in text.split(","):
        match = _SHAPE.match(part)
        axes = tuple(map(int, match["axes"].split("x"))) if match else ()
        expected = {"crops": (*input_hw, 3), "box_scores": ()}
        if not match or expected.get(match["name"]) != axes[1:]:
            shape = "x".join(map(str, (*input_hw, 3)))
            raise QanetError("bad shape", expected=f"crops:Nx{shape} and, if at all, box_scores:N", got=part)
        batches.add(axes[0])
    if len(batches) != 1:
        raise QanetError("the inputs of a batch differ in number", expected="one batch size", got=text)
    return batches.pop()
