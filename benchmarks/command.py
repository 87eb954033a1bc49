"""`qanet benchmark`: gather people from an input, check every precision, time them in turns, write the report."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qanet.benchmarks import document as documents
from qanet.benchmarks import harness, machine, output
from qanet.benchmarks.agreement import compare
from qanet.benchmarks.check import Checked, check_precisions
from qanet.benchmarks.execution import describe_execution, execution_warning
from qanet.benchmarks.report.page import write_report
from qanet.benchmarks.report.pictures import Pictures, gather_pictures
from qanet.benchmarks.samples import SampleSet, collect
from qanet.benchmarks.targets import build_targets
from qanet.bundle import PRECISIONS, Bundle, open_bundle
from qanet.cli.commandline import command_parser, note
from qanet.errors import QanetError
from qanet.runtime.command import open_detector
from qanet.runtime.engines.select import DEVICES
from qanet.runtime.parser import Parser
from qanet.runtime.video.source import open_source

_CHECK_CROPS = 32


def _arguments() -> argparse.ArgumentParser:
    parser = command_parser("benchmark", "Latency against accuracy of a bundle's precisions, with an HTML report.")
    parser.add_argument("model", metavar="NAME.qanet")
    parser.add_argument("--input", metavar="URI", help="a video, an image, or a folder of images with people")
    people = parser.add_mutually_exclusive_group()
    people.add_argument("--detector", metavar="ONNX", help="person detector (YOLOX); default: OpenCV's HOG")
    people.add_argument("--boxes", metavar="JSON", help="boxes from a file instead of a detector")
    people.add_argument("--whole-image", action="store_true", help="one person who fills the image")
    parser.add_argument("--precision", help="comma-separated (fp32,fp16,int8); default: every graph of the bundle")
    parser.add_argument("--device", default="auto", choices=DEVICES)
    parser.add_argument("--frames", type=int, default=24, metavar="N", help="frames to take from the input (24)")
    parser.add_argument("--duration", type=float, default=20.0, metavar="S", help="seconds of timed rounds (20)")
    parser.add_argument("--rounds", type=int, metavar="N", help="stop after so many rounds, if that comes first")
    parser.add_argument("--threads", type=int, help="CPU threads of the engines")
    parser.add_argument(
        "--output", default="benchmark", metavar="DIR", help="for report.html, results.json, results.csv"
    )
    parser.add_argument("--parse-summary", metavar="JSON", help="what `qanet parse --json` printed, for the report")
    parser.add_argument("--overlay", metavar="VIDEO", help="take the sample frames from a video `qanet parse` wrote")
    return parser


def main(argv: Sequence[str]) -> int:
    """Entry point; exit code 0, 1 when no precision could be timed, 130 after Ctrl-C."""
    args = _arguments().parse_args(argv)
    bundle, precisions = _checked_arguments(args)
    parse_summary = _parse_summary(args.parse_summary)
    facts = machine.describe()
    samples = collect(open_source(args.input), open_detector(args), bundle.input_hw, args.frames)
    note(
        f"{samples.people} people in {len(samples.samples)} of {samples.frames} frames; checks: {', '.join(precisions)}"
    )
    checked = check_precisions(bundle, args.device, precisions, args.threads, *samples.crops(_CHECK_CROPS))
    for precision, check in checked.checks.items():
        if not check.passed:
            note(f"refused to time {precision}: {check.reason}")
    targets, parsers = build_targets(bundle, checked.engines, samples)
    session = harness.Session([])
    if parsers:
        note(f"warming up and timing {len(targets)} targets for {args.duration:g} s")
        session = harness.run(targets, args.duration, args.rounds)
    document = _document(bundle, args, facts, samples, checked, session, parsers)
    if parse_summary is not None:
        document["parse"] = parse_summary
    _write(Path(args.output), document, _pictures(args, bundle, samples, checked, parse_summary))
    _print(args, document)
    if session.interrupted:
        return 130
    return 0 if parsers else 1


def _checked_arguments(args: argparse.Namespace) -> tuple[Bundle, list[str]]:
    """The bundle and the precisions to measure; QanetError for whatever cannot be had."""
    bundle = open_bundle(args.model)
    graphs = bundle.manifest["graphs"]
    precisions = [p for p in PRECISIONS if p in graphs]
    if args.precision is not None:
        precisions = list(dict.fromkeys(part.strip() for part in args.precision.split(",") if part.strip()))
    for precision in precisions:
        if precision not in PRECISIONS:
            raise QanetError("unknown precision", expected=f"of {', '.join(PRECISIONS)}", got=repr(precision))
        if precision not in graphs:
            raise QanetError(
                f"{bundle.path} has no {precision} graph", expected=f"of {', '.join(graphs)}", got=precision,
                next_command=f"qanet build {args.model} --precision {precision}",
            )  # fmt: skip
    if not precisions:
        raise QanetError("no precision to measure", expected=f"of {', '.join(PRECISIONS)}", got=args.precision)
    if not args.input:
        raise QanetError(
            "no input to measure on", expected="people: a video, an image or a folder of images",
            next_command=f"qanet benchmark {args.model} --input VIDEO",
        )  # fmt: skip
    for name, value in (("--frames", args.frames), ("--rounds", args.rounds), ("--threads", args.threads)):
        if value is not None and value < 1:
            raise QanetError(f"bad {name}", expected="1 or more", got=value)
    if not 0 < args.duration < float("inf"):
        raise QanetError("bad --duration", expected="seconds above 0", got=args.duration)
    if args.overlay and not Path(args.overlay).is_file():
        raise QanetError(f"no overlay video {args.overlay}", next_command=f"qanet parse {args.input} {args.overlay}")
    return bundle, precisions


def _parse_summary(path: str | None) -> dict[str, Any] | None:
    if path is None:
        return None
    summary = documents.read_json(Path(path))
    if not isinstance(summary.get("stages_ms"), dict):
        raise QanetError(
            f"{path} is not a summary of a parse", expected="what `qanet parse --json` prints, with stages_ms",
            got=f"keys {', '.join(summary)}", next_command="qanet parse INPUT --json > parse.json",
        )  # fmt: skip
    return summary


def _document(
    bundle: Bundle, args: argparse.Namespace, facts: dict[str, Any], samples: SampleSet, checked: Checked,
    session: harness.Session, parsers: dict[str, Parser],
) -> dict[str, Any]:  # fmt: skip
    agreement = {
        precision: {"against": checked.reference_name, **compare(checked.reference, checked.parsings[precision])}
        for precision in checked.engines
        if checked.reference is not None and checked.parsings[precision] is not checked.reference
    }
    executions = {precision: describe_execution(bundle, engine) for precision, engine in checked.engines.items()}
    parts = {
        "bundle": documents.describe_bundle(bundle),
        "input": documents.describe_input(samples, Path(args.input).name),
        "machine": facts,
        "checks": {precision: check.to_json() for precision, check in checked.checks.items()},
        "agreement": agreement,
        "executions": executions,
    }
    found = [machine.busy_warning(facts), *(execution_warning(p, e) for p, e in executions.items())]
    stages_ms = {precision: parser.times.samples_ms for precision, parser in parsers.items()}
    return documents.build(parts, session, stages_ms, [line for line in found if line] + samples.warnings)


def _pictures(
    args: argparse.Namespace, bundle: Bundle, samples: SampleSet, checked: Checked, parse_summary: dict[str, Any] | None
) -> Pictures:
    crops, _ = samples.crops(_CHECK_CROPS)
    overlay = Path(args.overlay) if args.overlay else None
    return gather_pictures(
        bundle, checked, samples.samples, crops, overlay, (parse_summary or {}).get("people_by_frame")
    )


def _write(folder: Path, document: dict[str, Any], pictures: Pictures) -> None:
    output.write_results(folder, document)
    write_report(folder / "report.html", document, pictures)


def _print(args: argparse.Namespace, document: dict[str, Any]) -> None:
    for warning in document["warnings"]:
        note(f"warning: {warning}")
    if args.json:
        print(json.dumps(document, indent=1, allow_nan=False))
    else:
        print(output.text(document, Path(args.output)))
        print(output.summary_line(document, Path(args.output)))
