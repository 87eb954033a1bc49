"""`qanet benchmark`: latency and accuracy with a report; two results compared; or the pipeline over a whole clip."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from qanet.benchmarks.benchmark import benchmark
from qanet.benchmarks.compare import compare, compare_text
from qanet.benchmarks.options import MLPERF_SCENARIOS, BenchmarkOptions
from qanet.benchmarks.results import read_results
from qanet.benchmarks.tables import summary_line, text
from qanet.benchmarks.verdict import RESOLUTION
from qanet.benchmarks.video import measure_video, video_text
from qanet.bundle import OPTIONAL_PRECISIONS, PRECISIONS, open_bundle
from qanet.commandline import CommandParser, command_parser, emit, note, output_folder
from qanet.datasets import DATA_FORMATS
from qanet.errors import QanetError
from qanet.metrics import PROTOCOLS
from qanet.runtime.backends.select import DEVICES
from qanet.runtime.parser import TAILS

DEFAULT_MODEL = "ccp13-lite0"  # of --video
_VIDEO_ROUNDS = 3
_DEFAULTS = BenchmarkOptions("")
_PRECISIONS = (*PRECISIONS, *OPTIONAL_PRECISIONS)


def main(argv: Sequence[str]) -> int:
    """Entry point.

    Returns:
        0; 1 where no variant could be timed or a comparison found a regression; 130 after Ctrl-C.
    Raises:
        QanetError: an argument that cannot be, or a file or model that is not to be had.
    """
    args = _parser().parse_args(argv)
    if args.compare:
        old, new = args.compare
        return _compare(old, new, args.fail_above, args.resolution, args.json)
    precisions = None if args.precision is None else _names("--precision", args.precision, _PRECISIONS)
    tails, devices = _names("--tail", args.tail, TAILS), _names("--device", args.device, DEVICES)
    if args.video:
        return _video(_options(args, precisions, tails, devices), args.video, args.models, args.json)
    if not args.models:
        raise QanetError(
            "no model to measure", expected="NAME.qanet", next_command="qanet benchmark ccp13-lite0 --help"
        )
    if not args.input:
        raise QanetError(
            "no input to measure on",
            expected="people: a video, an image or a folder of images",
            next_command=f"qanet benchmark {args.models[0]} --input VIDEO",
        )
    options = _options(args, precisions, tails, devices)
    results = benchmark([open_bundle(name) for name in args.models], options, note)
    for warning in results.warnings:
        note(f"warning: {warning}")
    emit(args.json, results.to_json(), f"{text(results, options.output)}\n{summary_line(results, options.output)}")
    if results.timing.interrupted:
        return 130
    return 0 if any(check.passed for check in results.checks.values()) else 1


def _options(
    args: argparse.Namespace, precisions: list[str] | None, tails: list[str], devices: list[str]
) -> BenchmarkOptions:
    return BenchmarkOptions(
        input=args.input or args.video,
        precisions=precisions,
        tails=tails,
        devices=devices,
        threads=args.threads,
        detector=args.detector,
        boxes=args.boxes,
        whole_image=args.whole_image,
        frames=args.frames,
        duration_s=args.duration,
        rounds=args.rounds,
        baseline=args.baseline,
        data=args.data,
        data_format=args.format,
        split=args.split,
        protocol=args.protocol,
        images=args.images,
        pipeline_rounds=args.pipeline_rounds,
        sweep_rounds=args.sweep_rounds,
        cold_starts=args.cold_starts,
        energy_seconds=args.energy_seconds,
        profile=args.profile,
        micro=args.micro,
        mlperf=args.mlperf,
        output=Path(args.output),
        parse_summary=Path(args.parse_summary) if args.parse_summary else None,
        overlay=Path(args.overlay) if args.overlay else None,
    )


def _video(options: BenchmarkOptions, video: str, models: Sequence[str], as_json: bool) -> int:
    """Print the figures of the pipeline over a clip; 0, or 130 after Ctrl-C."""
    try:
        document = measure_video(
            video,
            _one("models", models or [DEFAULT_MODEL]),
            _one("--precision", options.precisions or ["auto"]),
            _one("--device", options.devices),
            _one("--tail", options.tails),
            options.detector,
            options.boxes,
            options.whole_image,
            options.threads,
            options.rounds or _VIDEO_ROUNDS,
            options.cold_starts or _VIDEO_ROUNDS,
            note,
        )
    except KeyboardInterrupt:
        return 130
    emit(as_json, document, video_text(document))
    return 0


def _compare(old: str, new: str, fail_above: float, resolution: float, as_json: bool) -> int:
    """Print the comparison of two results.json; 1 with a regression, else 0."""
    for name, value in (("--fail-above", fail_above), ("--resolution", resolution)):
        if not 0 <= value < 10:
            raise QanetError(f"bad {name}", expected="a share such as 0.05", got=value)
    found = compare(read_results(Path(old)), read_results(Path(new)), fail_above, resolution)
    emit(as_json, found.to_json(), compare_text(found))
    return 1 if found.regressions else 0


def _names(option: str, text: str, known: Sequence[str]) -> list[str]:
    """The words between commas, each once; QanetError for an unknown word, or none."""
    words = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for word in words:
        if word not in known:
            raise QanetError(f"unknown {option[2:]}", expected=f"one of {', '.join(known)}", got=repr(word))
    if not words:
        raise QanetError(f"no {option[2:]} to measure", expected=f"one of {', '.join(known)}", got=repr(text))
    return words


def _one(name: str, values: Sequence[str]) -> str:
    if len(values) > 1:
        raise QanetError(f"--video takes one of {name}", expected="one", got=", ".join(values))
    return values[0]


def _parser() -> CommandParser:
    parser = command_parser("benchmark", "Measure latency and accuracy of bundles, and write an HTML report.")
    parser.add_argument("models", nargs="*", metavar="NAME.qanet", help="bundles; all are timed in the same rounds")
    parser.add_argument("--input", metavar="URI", help="a video, an image, or a folder of images with people")
    parser.add_argument(
        "--video",
        metavar="CLIP",
        help="instead, run the whole pipeline over a clip: frames per second, CPU time, memory, time to first result",
    )
    people = parser.add_mutually_exclusive_group()
    people.add_argument(
        "--detector",
        metavar="NAME",
        help="person detector: a bundle, or an ONNX file of YOLOX, Ultralytics, RT-DETR or torchvision "
        "(default: person-lite0)",
    )
    people.add_argument("--boxes", metavar="JSON", help="take the people's boxes from this file, without a detector")
    people.add_argument("--whole-image", action="store_true", help="one person per image, who fills it")
    parser.add_argument("--precision", help="comma-separated, such as fp32,int8 (default: every graph of the bundle)")
    parser.add_argument(
        "--tail",
        default="kernel",
        help="comma-separated: kernel (labels at image resolution), graph (labels at crop resolution, inside the "
        "network) (default: kernel)",
    )
    parser.add_argument("--device", default="auto", help=f"comma-separated: {', '.join(DEVICES)} (default: auto)")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads of the engines (default: the runtime's)")
    parser.add_argument(
        "--output",
        type=output_folder,
        default="benchmark",
        metavar="DIR",
        help="folder for report.html, results.json and results.csv (default: benchmark)",
    )
    _add_timing(parser.add_argument_group("timing"))
    _add_accuracy(parser.add_argument_group("accuracy"))
    _add_comparison(parser.add_argument_group("comparing two results"))
    parser.add_argument("--parse-summary", metavar="JSON", help="show this `qanet parse --json` output in the report")
    parser.add_argument(
        "--overlay", metavar="VIDEO", help="show frames of this video, written by `qanet parse`, in the report"
    )
    return parser


def _add_timing(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--frames", type=int, default=_DEFAULTS.frames, metavar="N", help="frames to take from the input (default: 24)"
    )
    group.add_argument(
        "--duration", type=float, default=_DEFAULTS.duration_s, metavar="S", help="seconds of timing (default: 20)"
    )
    group.add_argument("--rounds", type=int, metavar="N", help="stop after N rounds, if that is sooner")
    group.add_argument("--baseline", action="store_true", help="also time the method's PyTorch form")
    group.add_argument(
        "--pipeline-rounds", type=int, default=0, metavar="N", help="time the video pipeline: N rounds of 8 frames"
    )
    group.add_argument(
        "--cold-starts", type=int, default=0, metavar="N", help="time the start of N fresh processes per variant"
    )
    group.add_argument(
        "--sweep-rounds",
        type=int,
        default=0,
        metavar="N",
        help="time 1 to 16 people per frame, and 5 image sizes: N rounds",
    )
    group.add_argument(
        "--energy-seconds",
        type=float,
        default=0.0,
        metavar="S",
        help="read the power sensors for S seconds per variant",
    )
    group.add_argument("--profile", action="store_true", help="time each layer and block, and trace the threads")
    group.add_argument("--micro", action="store_true", help="time crop, network and tail apart, each against its floor")
    group.add_argument(
        "--mlperf",
        choices=MLPERF_SCENARIOS,
        metavar="SCENARIO",
        help=f"run MLPerf's load generator in this scenario: {' or '.join(MLPERF_SCENARIOS)}",
    )


def _add_accuracy(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--data", metavar="DIR", help="measure the accuracy of every variant on this data set")
    group.add_argument(
        "--format",
        choices=DATA_FORMATS,
        metavar="NAME",
        help=f"of --data: {', '.join(DATA_FORMATS)} (default: by what lies in it)",
    )
    group.add_argument(
        "--split", metavar="NAME", help="of --data (default: val; a ccp folder without val.txt is taken whole)"
    )
    group.add_argument(
        "--protocol",
        default="official",
        choices=tuple(PROTOCOLS),
        help="official: metrics as the published code computes them, to compare with published numbers (default); "
        "strict: without that code's mistakes, to compare models",
    )
    group.add_argument("--images", type=int, metavar="N", help="use only the first N images of --data")


def _add_comparison(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--compare",
        nargs=2,
        metavar=("OLD.json", "NEW.json"),
        help="compare two results.json: faster, slower, or cannot tell",
    )
    group.add_argument(
        "--fail-above",
        type=float,
        default=0.05,
        metavar="SHARE",
        help="exit with 1 if latency or accuracy got worse by more than this fraction, with 95%% confidence "
        "(default: 0.05)",
    )
    group.add_argument(
        "--resolution",
        type=float,
        default=RESOLUTION,
        metavar="SHARE",
        help=f"smallest change of a latency to report, as a fraction (default: {RESOLUTION})",
    )
