"""Networks at every precision, alone and in whole frames, as a Markdown table.

    python -m qanet.benchmarks.lab.families ccp13-lite0.qanet r50c.qanet --input clip.mp4 --boxes boxes.json

`qanet benchmark` times all its targets in the same rounds, where a slow network takes the time of all. Here each
network has rounds of its own, first its precisions alone, then whole frames with every tail.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qanet.benchmarks import harness, machine
from qanet.benchmarks.check import Checked, check_variants
from qanet.benchmarks.document import accuracy_note, describe_input
from qanet.benchmarks.harness import anchor_target, summarize
from qanet.benchmarks.samples import SampleSet, collect, recrop
from qanet.benchmarks.schema import Execution
from qanet.benchmarks.targets import baseline_target, batches, engine_target, open_checked, parser_target, tail_target
from qanet.benchmarks.variants import Variant, list_variants
from qanet.benchmarks.verdict import paired_ratio, percentile_statistic
from qanet.bundle import OPTIONAL_PRECISIONS, PRECISIONS, Bundle, open_bundle
from qanet.commandline import CommandParser, command_parser, note, run_module
from qanet.errors import QanetError
from qanet.files import write_text
from qanet.runtime.detectors.open import open_detector
from qanet.runtime.parser import TAILS, Parser
from qanet.runtime.video.sources import open_source

_CHECK_CROPS = 4  # a ResNet-50c takes half a second per crop
_MEDIAN = percentile_statistic(50)
_NOT = "-"
_COLUMNS = (
    "network",
    "precision",
    "multiply-adds in",
    "graph MB",
    "engine MB",
    "mIoU",
    "network ms",
    "over FP32 (95%)",
)


@dataclass(frozen=True)
class Plan:
    """What to time of each network, and for how long (seconds of the rounds).

    Attributes:
        processor_time: report the processor time of all threads in place of the latency: on a busy machine it leaves
            out what other processes took.
    """

    precisions: Sequence[str]
    tails: Sequence[str]
    network_s: float
    frame_s: float
    threads: int | None = None
    with_baseline: bool = False
    processor_time: bool = False


def measure_family(bundle: Bundle, samples: SampleSet, plan: Plan) -> dict[str, Any]:
    """Time one network.

    Args:
        samples: frames and people, cropped for this network.
    Returns:
        Plain data: model, input_hw, rows (one per precision), baseline_ms (the PyTorch form's frames, None where it
        was not asked for or refused), refused (what was not timed, and why), interrupted, sessions (rounds and seconds
        of each).
    """
    variants = list_variants([bundle], plan.precisions, plan.tails, ["cpu"])
    checked = check_variants(bundle, variants, plan.threads, *samples.crops(_CHECK_CROPS))
    refused = {label: check.reason for label, check in checked.checks.items() if not check.passed}
    timed = [variant for variant in variants if variant.label in checked.engines]
    networks = harness.run([anchor_target(), *_networks(timed, checked, samples)], plan.network_s)
    frames = harness.Session([])
    if not networks.interrupted:
        targets = _frames(timed, checked, samples)
        targets += _baseline(bundle, timed, checked, samples, plan, refused)
        frames = harness.run([anchor_target(), *targets], plan.frame_s, warm_up=harness.WarmUp(window=1, max_calls=3))
    measured = {m.target.name: m for session in (networks, frames) for m in session.measurements}
    refused |= {name: m.error for name, m in measured.items() if m.error}
    samples_ms = {
        (m.target.kind, m.target.variant): m.cpu_ms if plan.processor_time else m.samples_ms
        for m in measured.values()
        if m.samples_ms
    }
    rows = [_row(p, variants, checked, samples_ms) for p in dict.fromkeys(v.precision for v in variants)]
    baseline = samples_ms.get(("baseline", f"{bundle.name} in PyTorch"))
    return {
        "model": bundle.name,
        "input_hw": list(bundle.input_hw),
        "people_per_frame": round(samples.mean_people, 3),
        "rows": [row | _over(row, samples_ms, baseline) for row in rows],
        "baseline_ms": summarize(baseline) if baseline else None,
        "refused": refused,
        "interrupted": networks.interrupted or frames.interrupted,
        "sessions": {
            name: {"rounds": session.rounds, "seconds": round(session.seconds, 1)}
            for name, session in (("networks", networks), ("frames", frames))
        },
    }


def _networks(timed: Sequence[Variant], checked: Checked, samples: SampleSet) -> list[harness.Target]:
    """A precision's engine once, cut to what the kernel tail takes where that tail is wanted."""
    first: dict[str, Variant] = {}
    for variant in sorted(timed, key=lambda v: v.tail != "kernel"):
        first.setdefault(variant.precision, variant)
    crops = batches(samples, 1)
    return [engine_target(v, checked.engines[v.label], crops, 1) for v in first.values()]


def _frames(timed: Sequence[Variant], checked: Checked, samples: SampleSet) -> list[harness.Target]:
    targets = [parser_target(v, Parser(v.bundle, checked.engines[v.label], v.tail), samples) for v in timed]
    return targets + [tail_target(v, checked.engines[v.label], samples) for v in timed if v.tail == "kernel"]


def _baseline(
    bundle: Bundle,
    timed: Sequence[Variant],
    checked: Checked,
    samples: SampleSet,
    plan: Plan,
    refused: dict[str, str | None],
) -> list[harness.Target]:
    """The PyTorch form as a target; none, and the reason noted, where it may not be timed."""
    if not plan.with_baseline:
        return []
    ours = next((v for v in timed if (v.precision, v.tail) == ("fp32", "kernel")), None)
    parser = None if ours is None else Parser(bundle, checked.engines[ours.label], ours.tail)
    parse, reason = open_checked(bundle, plan.threads, parser, samples.samples[0])
    if parse is None:
        refused[f"{bundle.name} in PyTorch"] = reason
        return []
    return [baseline_target(bundle.name, parse, samples)]


def _row(
    precision: str, variants: Sequence[Variant], checked: Checked, samples_ms: Mapping[tuple[str, str], list[float]]
) -> dict[str, Any]:
    """One precision: its files, its accuracy and its medians."""
    mine = [v for v in variants if v.precision == precision]
    bundle = mine[0].bundle
    execution = next((checked.executions[v.label] for v in mine if v.label in checked.executions), Execution())
    card = bundle.manifest["accuracy"].get(precision) or {}
    engine = next((e for e in bundle.engines if (e["runtime"], e["precision"]) == (execution.runtime, precision)), None)
    network = next((samples_ms[key] for v in mine if (key := ("engine", v.label)) in samples_ms), None)
    return {
        "precision": precision,
        "labels": {v.tail: v.label for v in mine},
        "computes_in": execution.multiply_add_shares or execution.products,
        "graph_bytes": bundle.manifest["files"][bundle.manifest["graphs"][precision]]["bytes"],
        "engine_bytes": bundle.manifest["files"][engine["file"]]["bytes"] if engine else None,
        "miou": card.get("miou"),
        "accuracy_note": accuracy_note(card),
        "network_ms": _figures(network),
        "frame_ms": {v.tail: _figures(samples_ms.get(("parser", v.label))) for v in mine},
        "tail_ms": next((_figures(samples_ms.get(("tail", v.label))) for v in mine if v.tail == "kernel"), None),
    }


def _over(
    row: dict[str, Any], samples_ms: Mapping[tuple[str, str], list[float]], baseline: list[float] | None
) -> dict[str, Any]:
    """Ratios of the same rounds: FP32 over this precision, and the PyTorch form over this precision's frames."""
    found: dict[str, Any] = {"network_speed_up": None, "frame_speed_up": {}, "over_baseline": {}}
    labels = row["labels"]
    for tail, label in labels.items():
        fp32 = label.replace(row["precision"], "fp32", 1)
        own, wide = samples_ms.get(("engine", label)), samples_ms.get(("engine", fp32))
        if own and wide:
            found["network_speed_up"] = paired_ratio(wide, own, _MEDIAN).to_json()
        own, wide = samples_ms.get(("parser", label)), samples_ms.get(("parser", fp32))
        found["frame_speed_up"][tail] = paired_ratio(wide, own, _MEDIAN).to_json() if own and wide else None
        found["over_baseline"][tail] = paired_ratio(baseline, own, _MEDIAN).to_json() if own and baseline else None
    return found


def _figures(samples_ms: list[float] | None) -> dict[str, Any] | None:
    return summarize(samples_ms) if samples_ms else None


def markdown(document: Mapping[str, Any]) -> str:
    """The table with its machine above it, and what was refused below; milliseconds are medians."""
    cpu, source = document["machine"]["cpu"], document["input"]
    tails = _tails(document)
    has_baseline = any(family["baseline_ms"] for family in document["families"])
    header = list(_COLUMNS)
    header += [f"frame ms, {tail} tail" for tail in tails] + (["tail alone ms"] if "kernel" in tails else [])
    header += [f"over PyTorch, {tail} tail (95%)" for tail in tails] if has_baseline else []
    lines = [_cells(header), _cells(["---"] * len(header))]
    for family in document["families"]:
        lines += [_cells(_table_row(family, row, tails, has_baseline)) for row in family["rows"]]
        if family["baseline_ms"]:
            cells = [f"{family['model']}, PyTorch", "fp32", *[_NOT] * 6, _ms(family["baseline_ms"])]
            lines.append(_cells(cells + [_NOT] * (len(header) - len(cells))))
    head = (
        f"{cpu['model'] or 'an unnamed CPU'}, {cpu['usable_cpus']} CPUs, threads {document['threads'] or 'default'}, "
        f"load average {(document['machine']['load_average'] or [None])[0]}; {source['name']}: {source['people']} "
        f"people in {source['frames_with_people']} frames of {source['image_sizes_hw']}; medians of {document['of']}"
    )
    rounds = "; ".join(
        f"{f['model']} " + ", ".join(f"{name} {s['rounds']} rounds" for name, s in f["sessions"].items())
        for f in document["families"]
    )
    refused = [f"not timed: {what}: {why}" for f in document["families"] for what, why in f["refused"].items()]
    warnings = [f"warning: {line}" for line in document["warnings"]]
    return "\n".join([head, rounds, "", *lines, "", *refused, *warnings]).rstrip()


def _table_row(family: Mapping[str, Any], row: Mapping[str, Any], tails: list[str], has_baseline: bool) -> list[str]:
    shares = row["computes_in"] or {}
    total = sum(shares.values()) or 1
    computes_in = ", ".join(f"{name} {value / total:.0%}" for name, value in shares.items() if value / total >= 0.005)
    cells = [
        family["model"],
        row["precision"],
        computes_in or _NOT,
        _megabytes(row["graph_bytes"]),
        _megabytes(row["engine_bytes"]),
        _NOT if row["miou"] is None else f"{100 * row['miou']:.2f}",
        _ms(row["network_ms"]),
        "1" if row["precision"] == "fp32" else _ratio(row["network_speed_up"]),
    ]
    cells += [_ms(row["frame_ms"].get(tail)) for tail in tails]
    cells += [_ms(row["tail_ms"])] if "kernel" in tails else []
    return cells + ([_ratio(row["over_baseline"].get(tail)) for tail in tails] if has_baseline else [])


def _tails(document: Mapping[str, Any]) -> list[str]:
    found = [tail for family in document["families"] for row in family["rows"] for tail in row["frame_ms"]]
    return list(dict.fromkeys(found))


def _cells(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _ms(figures: Mapping[str, Any] | None) -> str:
    return _NOT if not figures or not figures.get("n") else f"{figures['p50']:.3g}"


def _ratio(value: Mapping[str, float] | None) -> str:
    return _NOT if value is None else f"{value['value']:.2f} ({value['low']:.2f} to {value['high']:.2f})"


def _megabytes(count: int | None) -> str:
    return _NOT if count is None else f"{count / 1e6:.1f}"


def _arguments() -> CommandParser:
    parser = command_parser("families", "Several networks at every precision, alone and as whole frames.")
    parser.prog = "python -m qanet.benchmarks.lab.families"
    parser.add_argument("models", nargs="+", metavar="NAME.qanet")
    parser.add_argument("--input", required=True, metavar="URI", help="a video, an image, or a folder of images")
    people = parser.add_mutually_exclusive_group()
    people.add_argument(
        "--detector", metavar="NAME", help="a bundle or an ONNX file of a known form; default: person-lite0"
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
    detector = open_detector(args.detector, boxes=args.boxes, whole_image=args.whole_image, threads=args.threads)
    people = collect(open_source(args.input), detector, bundles[0], args.frames)
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
            found = measure_family(bundle, recrop(people, bundle), plan)
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
