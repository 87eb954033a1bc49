"""`python -m qanet.benchmarks.families A.qanet B.qanet ...`: a Markdown table of every network at every precision.

The networks alone are timed on one crop, all precisions of a network in the same rounds; then whole frames (crop,
network, tail, suppression) with both tails, and with `--baseline` the method's PyTorch form in the same rounds.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qanet.benchmarks import machine
from qanet.benchmarks.document import describe_input
from qanet.benchmarks.families.measure import Plan, measure_family
from qanet.benchmarks.families.table import markdown
from qanet.benchmarks.samples import collect, recrop
from qanet.bundle import OPTIONAL_PRECISIONS, PRECISIONS, open_bundle
from qanet.commandline import CommandParser, command_parser, note, run_module
from qanet.errors import QanetError
from qanet.files import write_text
from qanet.runtime.detectors.choice import open_detector
from qanet.runtime.parser import TAILS
from qanet.runtime.video.sources.open import open_source


def _arguments() -> CommandParser:
    parser = command_parser("families", "Several networks at every precision, alone and as whole frames.")
    parser.prog = "python -m qanet.benchmarks.families"
    parser.add_argument("models", nargs="+", metavar="NAME.qanet")
    parser.add_argument("--input", required=True, metavar="URI", help="a video, an image, or a folder of images")
    people = parser.add_mutually_exclusive_group()
    people.add_argument(
        "--detector", metavar="NAME", help="a bundle, an ONNX file of a known form, hog; default: person-lite0"
    )
    people.add_argument("--boxes", metavar="JSON", help="boxes from a file instead of a detector")
    people.add_argument("--whole-image", action="store_true", help="one person who fills the image")
    parser.add_argument("--precisions", default="fp32,bf16,fp16,int8", help="comma-separated (fp32,bf16,fp16,int8)")
    parser.add_argument("--tails", default="kernel,graph", help="comma-separated (kernel,graph)")
    parser.add_argument("--frames", type=int, default=8, metavar="N", help="frames to take from the input (8)")
    parser.add_argument("--network-seconds", type=float, default=20.0, metavar="S", help="rounds of each network (20)")
    parser.add_argument("--frame-seconds", type=float, default=20.0, metavar="S", help="rounds of its frames (20)")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads of the engines")
    parser.add_argument("--baseline", action="store_true", help="time the method's PyTorch form in the same rounds")
    parser.add_argument("--processor-time", action="store_true", help="of all threads, in place of latency: where busy")
    parser.add_argument("--output", metavar="FILE.json", help="write the figures there too")
    return parser


def main(argv: Sequence[str]) -> int:
    """Entry point; 1 when nothing could be timed, 130 after Ctrl-C with the table of what was."""
    args = _arguments().parse_args(argv)
    plan = _plan(args)
    for name in ("frames", "threads"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise QanetError(f"bad --{name}", expected="1 or more", got=getattr(args, name))
    bundles = [open_bundle(name) for name in args.models]
    facts = machine.describe()
    people = collect(open_source(args.input), open_detector(args), bundles[0].input_hw, args.frames)
    document: dict[str, Any] = {
        "kind": "qanet families",
        "machine": facts,
        "input": describe_input(people, Path(args.input).name).to_json(),
        "threads": args.threads,
        "of": "processor time" if args.processor_time else "latency",
        "families": [],
    }
    interrupted = False
    for bundle in bundles:
        note(f"{bundle.name}: {', '.join(plan.precisions)}")
        try:
            found = measure_family(bundle, recrop(people, bundle.input_hw), plan)
        except KeyboardInterrupt:
            interrupted = True
            break
        document["families"].append(found)
        if found["interrupted"]:
            interrupted = True
            break
    facts["after"] = machine.finish(facts)
    document["warnings"] = machine.warnings_of(facts)
    if args.output:
        write_text(Path(args.output), json.dumps(document, indent=1, allow_nan=False) + "\n")
    print(json.dumps(document, indent=1, allow_nan=False) if args.json else markdown(document))
    if interrupted:
        return 130
    return 0 if any(row["network_ms"] for family in document["families"] for row in family["rows"]) else 1


def _plan(args: Any) -> Plan:
    precisions = _names("--precisions", args.precisions, (*PRECISIONS, *OPTIONAL_PRECISIONS))
    tails = _names("--tails", args.tails, TAILS)
    for name in ("network_seconds", "frame_seconds"):
        if not 0 < getattr(args, name) < float("inf"):
            raise QanetError(f"bad --{name.replace('_', '-')}", expected="seconds above 0", got=getattr(args, name))
    seconds = args.network_seconds, args.frame_seconds
    return Plan(precisions, tails, *seconds, args.threads, args.baseline, args.processor_time)


def _names(option: str, text: str, known: Sequence[str]) -> list[str]:
    words = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    wrong = [word for word in words if word not in known]
    if wrong or not words:
        raise QanetError(f"bad {option}", expected=f"of {', '.join(known)}", got=repr(wrong[0] if wrong else text))
    return words


if __name__ == "__main__":
    run_module(main)
