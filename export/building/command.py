"""`qanet build`: engines into a bundle, by options of its own and by trtexec's names for them."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qanet.bundle import open_bundle, safe_name
from qanet.commandline import command_parser, emit, note, output_folder, table
from qanet.errors import QanetError
from qanet.export.backends.tensorrt_options import HARDWARE_LEVELS, SHARED_CACHE, Options, low_memory
from qanet.export.building.bundle import BuildReport, KeptEngine, build, refit
from qanet.export.building.options import FLOAT_RESTS, RUNTIMES, TAILS, BuildOptions

_UNITS = {"": 1.0, "M": 1.0, "G": 1024.0, "K": 1 / 1024, "B": 1 / (1 << 20)}  # -> MiB, as trtexec reads them
_SHAPE = re.compile(r"^(?P<name>\w+):(?P<axes>\d+(x\d+)*)$")
_HEADER = ("runtime", "precision", "target", "batch", "MiB", "multiply-adds in", "reformats", "seconds")


def main(argv: Sequence[str]) -> int:
    """Entry point; QanetError where a precision cannot be had here, or answers wrongly."""
    args = build_parser().parse_args(argv)
    source = open_bundle(args.model)
    options = build_options(args, source.input_hw)
    if args.refit:
        bundle, files = refit(source, output=args.output, lock_timeout_s=options.lock_timeout_s, notice=note)
        emit(args.json, {"bundle": str(bundle.path), "refitted": files}, f"refitted {', '.join(files)}")
        return 0
    report = build(source, options, output=args.output, report=None if args.json else note, notice=note)
    if report.engines or not report.wrong_answers:
        emit(args.json, report.to_json(), _text(report))
    report.check()
    return 0


def _text(report: BuildReport) -> str:
    return f"{table([_row(engine) for engine in report.engines], _HEADER)}\nwrote into {report.bundle.path}"


def _row(engine: KeptEngine) -> tuple[object, ...]:
    entry, built = engine.entry, engine.built
    shares = built.census.multiply_add_shares
    share = ", ".join(f"{name} {value:.0%}" for name, value in shares.items() if value >= 0.005)
    batches = ", ".join(f"{low}-{high}" if low < high else f"{high}" for low, _, high in built.batches) or "any"
    precision = entry["precision"]
    return (
        built.runtime,
        f"{precision} (no VNNI)" if entry.get("graph", precision) != precision else precision,
        safe_name("+".join(built.targets)),
        batches,
        f"{engine.bytes / 2**20:.1f}",
        share,
        built.census.reformats,
        f"{built.seconds:.1f}",
    )


def build_parser() -> argparse.ArgumentParser:
    """The parser; numbers that low-memory mode lowers default to None, so that a given one is recognised."""
    parser = command_parser("build", "Write typed graphs and build engines; fails when a precision is not delivered.")
    add = parser.add_argument
    add("model", metavar="NAME.qanet")
    add("--precision", default="fp32,fp16,int8", help="comma-separated (fp32,fp16,int8; also bf16, fp8)")
    for precision in ("fp16", "bf16", "int8", "fp8"):
        add(f"--{precision}", dest="precision", action="store_const", const=precision, help="sugar for --precision")
    add(
        "--best",
        dest="precision",
        action="store_const",
        const="int8",
        help="same as --precision int8: 16 bits for the rest",
    )
    add("--runtime", default="auto", help=f"{', '.join(RUNTIMES)}; auto: TensorRT if installed, else OpenVINO")
    add("--target", metavar="SM", help="GPUs to build for, e.g. sm_86,sm_120 (TensorRT-RTX needs none of them here)")
    add(
        "--float-rest",
        default="auto",
        choices=FLOAT_RESTS,
        help="type of the layers that an INT8 engine of OpenVINO does not run in INT8; auto: the faster, measured here",
    )
    add("--tail", default="kernel", choices=TAILS, help="outputs the engine keeps: those of the score kernels, or all")
    add("--max-batch", type=int, metavar="N", help="largest number of crops per call (16)")
    add("--static-buckets", action="store_true", help="one profile per batch size 1, 2, 4, 8, 16")
    add("--workspace", type=int, metavar="MiB", help="scratch memory per layer (4096)")
    add("--low-memory", action="store_true", help="for Jetsons: one bucket at a time, in a process of its own")
    add("--builder-optimization-level", "--builderOptimizationLevel", type=int, metavar="0..5")
    add("--timing-cache-file", "--timingCacheFile", metavar="FILE", help="default: a file that all builds share")
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
    add("--refit", action="store_true", help="put the weights into stripped engines, build nothing")
    add(
        "--dla",
        "--useDLACore",
        type=int,
        metavar="CORE",
        help="run on a DLA; layers that it cannot run stay on the GPU",
    )
    add("--tf32", action="store_true", help="let FP32 layers use TF32")
    add("--verify", action="store_true", help="compare each engine with ONNX Runtime before it is kept")
    add("--images", metavar="DIR", help="crops of people to verify with; default: synthetic ones")
    add("--lock-timeout", type=float, default=600, metavar="S", help="seconds to wait for another build (600)")
    add("--output", type=output_folder, metavar="NAME.qanet", help="build into a copy")
    _add_trtexec_names(parser)
    return parser


def _add_trtexec_names(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("trtexec's names for the options above")
    group.add_argument("--saveEngine", metavar="FILE", help="also write the engine here (one runtime, one precision)")
    group.add_argument("--memPoolSize", metavar="POOL:SIZE", help="workspace:2048, in MiB")
    group.add_argument(
        "--profilingVerbosity", choices=("detailed",), default="detailed", help="always so: the census needs it"
    )
    group.add_argument("--allowGPUFallback", action="store_true", help="always so with --dla")
    group.add_argument("--stronglyTyped", action="store_true", help="always so")
    for name in ("minShapes", "optShapes", "maxShapes"):
        group.add_argument(f"--{name}", metavar="crops:NxHxWx3", help="the batches of one dynamic profile")


def build_options(args: argparse.Namespace, input_hw: tuple[int, int]) -> BuildOptions:
    """The options of a command line.

    Args:
        args: of `build_parser`.
        input_hw: crop size (H, W) pixels, which shapes must repeat.
    Raises:
        QanetError: an unknown name, a value out of range, or two arguments that contradict each other.
    """
    return BuildOptions(
        precisions=_names(args.precision),
        runtimes=[] if args.runtime == "auto" else _names(args.runtime),
        targets=args.target.split(",") if args.target else None,
        tail=args.tail,
        float_rest=args.float_rest,
        tensorrt=_tensorrt_options(args, input_hw),
        low_memory=args.low_memory,
        verify=args.verify,
        images=Path(args.images) if args.images else None,
        save_engine=Path(args.saveEngine) if args.saveEngine else None,
        lock_timeout_s=args.lock_timeout,
        show_progress=not args.json,
    )


def _names(text: str) -> list[str]:
    """Comma-separated names, each once."""
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _tensorrt_options(args: argparse.Namespace, input_hw: tuple[int, int]) -> Options:
    workspace = args.workspace
    if args.memPoolSize is not None:
        if workspace is not None:
            raise QanetError("the workspace is given twice", expected="--workspace or --memPoolSize", got="both")
        workspace = _workspace_mib(args.memPoolSize)
    if args.no_timing_cache and args.timing_cache_file:
        raise QanetError("a timing cache is given and switched off", expected="one of the two", got="both")
    asked: dict[str, Any] = {
        "workspace_mib": workspace,
        "max_batch": args.max_batch,
        "profile": _profile(args, input_hw),
        "optimization_level": args.builder_optimization_level,
    }
    given = {name: value for name, value in asked.items() if value is not None}
    options = Options(
        static_buckets=args.static_buckets,
        timing_cache=None if args.no_timing_cache else args.timing_cache_file or SHARED_CACHE,
        tf32=args.tf32,
        version_compatible=args.version_compatible,
        hardware_compatibility=args.hardware_compatibility.lower(),
        strip_weights=args.strip_weights,
        dla=args.dla,
        **given,
    )
    return low_memory(options, given=frozenset(given)) if args.low_memory else options


def _workspace_mib(text: str) -> int:
    """MiB of trtexec's `workspace:2048`; other memory pools are refused."""
    match = re.fullmatch(r"workspace:(\d+(?:\.\d+)?)([BKMG]?)", text)
    if not match:
        raise QanetError("bad --memPoolSize", expected="workspace:SIZE, in MiB or with B, K, M or G", got=text)
    return max(1, int(float(match[1]) * _UNITS[match[2]]))


def _profile(args: argparse.Namespace, input_hw: tuple[int, int]) -> tuple[int, int, int] | None:
    """(min, opt, max) batch of trtexec's shapes; missing ones follow from the others, as in trtexec."""
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
            raise QanetError("bad shape", expected=f"crops:Nx{shape} and optionally box_scores:N", got=part)
        batches.add(axes[0])
    if len(batches) != 1:
        raise QanetError("the inputs of a batch differ in number", expected="one batch size", got=text)
    return batches.pop()
