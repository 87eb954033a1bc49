"""The arguments of `qanet benchmark`, and what of them cannot be."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from qanet.benchmarks.verdict import RESOLUTION
from qanet.bundle import OPTIONAL_PRECISIONS, PRECISIONS
from qanet.commandline import command_parser
from qanet.datasets import DATA_FORMATS
from qanet.errors import QanetError
from qanet.metrics import PROTOCOLS
from qanet.runtime.engines.select import DEVICES
from qanet.runtime.parser import TAILS

MLPERF_SCENARIOS = ("SingleStream", "Offline")


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse and check; lists are lists afterwards.

    Raises:
        QanetError: an argument that cannot be.
    """
    args = _parser().parse_args(argv)
    if args.compare:
        return args
    if not args.models and not args.video:
        raise QanetError(
            "no model to measure", expected="NAME.qanet", next_command="qanet benchmark ccp13-lite0 --help"
        )
    args.precision = _precisions(args.precision)
    args.tail = _names("--tail", args.tail, TAILS)
    args.device = _names("--device", args.device, DEVICES)
    if not args.input and not args.video:
        raise QanetError(
            "no input to measure on",
            expected="people: a video, an image or a folder of images",
            next_command=f"qanet benchmark {args.models[0]} --input VIDEO",
        )
    for name in ("frames", "rounds", "threads", "images"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise QanetError(f"bad --{name}", expected="1 or more", got=value)
    for name in ("pipeline_rounds", "cold_starts", "energy_seconds", "sweep_rounds"):
        if not 0 <= getattr(args, name) < float("inf"):
            raise QanetError(f"bad --{name.replace('_', '-')}", expected="0 or more", got=getattr(args, name))
    if not 0 < args.duration < float("inf"):
        raise QanetError("bad --duration", expected="seconds above 0", got=args.duration)
    if args.overlay and not Path(args.overlay).is_file():
        raise QanetError(f"no overlay video {args.overlay}", next_command=f"qanet parse {args.input} {args.overlay}")
    return args


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("benchmark", "Latency against accuracy of bundles, with an HTML report.")
    parser.add_argument("models", nargs="*", metavar="NAME.qanet", help="one or more; all are timed in the same rounds")
    parser.add_argument("--input", metavar="URI", help="a video, an image, or a folder of images with people")
    parser.add_argument("--video", metavar="CLIP", help="the whole pipeline over a clip instead: rate, CPU, memory")
    people = parser.add_mutually_exclusive_group()
    people.add_argument(
        "--detector", metavar="NAME", help="a bundle, an ONNX file of a known form, hog; default: person-lite0"
    )
    people.add_argument("--boxes", metavar="JSON", help="boxes from a file instead of a detector")
    people.add_argument("--whole-image", action="store_true", help="one person who fills the image")
    parser.add_argument("--precision", help="comma-separated (fp32,bf16,fp16,int8); default: every graph of the bundle")
    parser.add_argument("--tail", default="kernel", help="comma-separated (kernel,graph); default: kernel")
    parser.add_argument("--device", default="auto", help=f"comma-separated ({','.join(DEVICES)}); default: auto")
    parser.add_argument("--threads", type=int, help="CPU threads of the engines")
    parser.add_argument(
        "--output", default="benchmark", metavar="DIR", help="for report.html, results.json, results.csv"
    )
    _add_timing(parser.add_argument_group("timing"))
    _add_accuracy(parser.add_argument_group("accuracy"))
    _add_comparison(parser.add_argument_group("comparing two results"))
    parser.add_argument("--parse-summary", metavar="JSON", help="what `qanet parse --json` printed, for the report")
    parser.add_argument("--overlay", metavar="VIDEO", help="take the sample frames from a video `qanet parse` wrote")
    return parser


def _add_timing(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--frames", type=int, default=24, metavar="N", help="frames to take from the input (24)")
    group.add_argument("--duration", type=float, default=20.0, metavar="S", help="seconds of timed rounds (20)")
    group.add_argument("--rounds", type=int, metavar="N", help="stop after so many rounds, if that comes first")
    group.add_argument("--baseline", action="store_true", help="time the method's PyTorch form in the same rounds")
    group.add_argument(
        "--pipeline-rounds", type=int, default=0, metavar="N", help="time the video pipeline, N rounds of 8 frames"
    )
    group.add_argument("--cold-starts", type=int, default=0, metavar="N", help="start N fresh processes a variant")
    group.add_argument(
        "--sweep-rounds", type=int, default=0, metavar="N", help="sweep 1..16 people and the image's area, N rounds"
    )
    group.add_argument(
        "--energy-seconds", type=float, default=0.0, metavar="S", help="read the power sensors for S seconds a variant"
    )
    group.add_argument("--profile", action="store_true", help="time per layer and block, and a trace of the threads")
    group.add_argument("--micro", action="store_true", help="small pieces beside the floor each could reach")
    group.add_argument("--mlperf", choices=MLPERF_SCENARIOS, help="run MLPerf's load generator too")


def _add_accuracy(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--data", metavar="DIR", help="measure the accuracy of every variant on this data set")
    group.add_argument("--format", default="ccp", choices=DATA_FORMATS)
    group.add_argument("--split", metavar="NAME")
    group.add_argument("--protocol", default="official", choices=tuple(PROTOCOLS))
    group.add_argument("--images", type=int, metavar="N", help="only the first N images of the data")


def _add_comparison(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--compare", nargs=2, metavar=("OLD.json", "NEW.json"), help="verdicts instead of a measurement")
    group.add_argument(
        "--fail-above",
        type=float,
        default=0.05,
        metavar="SHARE",
        help="exit code 1 when a latency grew, or an accuracy fell, by more than this and it is sure (0.05)",
    )
    group.add_argument(
        "--resolution",
        type=float,
        default=RESOLUTION,
        metavar="SHARE",
        help=f"least change of a latency that is called ({RESOLUTION})",
    )


def _precisions(text: str | None) -> list[str] | None:
    return None if text is None else _names("--precision", text, (*PRECISIONS, *OPTIONAL_PRECISIONS))


def _names(option: str, text: str, known: Sequence[str]) -> list[str]:
    """The words between commas, each once; QanetError for one that is not known, or none."""
    words = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for word in words:
        if word not in known:
            raise QanetError(f"unknown {option[2:]}", expected=f"of {', '.join(known)}", got=repr(word))
    if not words:
        raise QanetError(f"no {option[2:]} to measure", expected=f"of {', '.join(known)}", got=text)
    return words
