"""`qanet benchmark`: gather people from an input, check every variant, time them in turns, write the report."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qanet.benchmarks import document as documents
from qanet.benchmarks import harness, machine
from qanet.benchmarks import tables as output
from qanet.benchmarks.accuracy import measure_accuracies, open_data
from qanet.benchmarks.arguments import parse_arguments
from qanet.benchmarks.check import Checked, check_variants, compare, execution_warning
from qanet.benchmarks.compare import run_compare
from qanet.benchmarks.passes import Passes
from qanet.benchmarks.report.page import write_report
from qanet.benchmarks.report.pictures import Pictures, gather_pictures
from qanet.benchmarks.samples import SampleSet, collect, recrop
from qanet.benchmarks.targets import baseline_target, build_targets, open_checked
from qanet.benchmarks.variants import Variant, list_variants, model_names, without_lacking
from qanet.benchmarks.video import run_video
from qanet.bundle import Bundle, open_bundle
from qanet.commandline import note
from qanet.errors import QanetError
from qanet.runtime.detectors.choice import open_detector
from qanet.runtime.parser import Parser
from qanet.runtime.video.sources.open import open_source

_CHECK_CROPS = 32


def main(argv: Sequence[str]) -> int:
    """Entry point; exit code 0, 1 when no variant could be timed or a comparison found a regression, 130 after
    Ctrl-C."""
    args = parse_arguments(argv)
    if args.compare:
        old, new = args.compare
        return run_compare(old, new, args.fail_above, args.resolution, args.json)
    if args.video:
        return run_video(args)
    bundles = [open_bundle(name) for name in args.models]
    variants, lacking = without_lacking(list_variants(bundles, args.precision, args.tail, args.device))
    data = open_data(args.data, args.format, args.split, bundles[0].labels) if args.data else None
    parse_summary = _parse_summary(args.parse_summary)
    facts = machine.describe()
    samples = _samples(args, bundles)
    checked = _check(args, bundles, variants, samples)
    engines = {label: engine for one in checked.values() for label, engine in one.engines.items()}
    accuracy = measure_accuracies(variants, engines, data, args.protocol, args.images, note) if data else {}
    targets, parsers = build_targets(variants, engines, samples)
    refusals = _add_baselines(args, variants, parsers, samples, targets)
    session = harness.Session([])
    if parsers:
        note(f"warming up and timing {len(targets)} targets for {args.duration:g} s")
        session = harness.run(targets, args.duration, args.rounds)
    passes = Passes(args, variants, engines, parsers, samples, session)
    parts = _parts(args, bundles, variants, facts, samples, checked)
    parts["accuracy"] = accuracy
    if parse_summary is not None:
        parts["parse"] = parse_summary
    more = passes.run(parts)
    facts["after"] = machine.finish(facts)
    document = _document(parts, variants, session, parsers, samples, more, lacking + refusals + passes.warnings)
    output.write_results(Path(args.output), document)  # before anything about pictures can go wrong
    first = model_names(bundles)[0]
    try:
        pictures = _pictures(args, bundles[0], samples[first], checked[first], parse_summary)
    except Exception as error:  # an engine that broke in the rounds breaks here too; the figures have to be shown
        document["warnings"].append(f"the report has no pictures: {type(error).__name__}: {error}")
        pictures = Pictures()
    write_report(Path(args.output) / "report.html", document, pictures)
    _print(args, document)
    if document["timing"]["interrupted"]:
        return 130
    return 0 if parsers else 1


def _add_baselines(
    args: argparse.Namespace,
    variants: Sequence[Variant],
    parsers: dict[str, Parser],
    samples: dict[str, SampleSet],
    targets: list[harness.Target],
) -> list[str]:
    """Add a model's PyTorch form to the targets; a sentence for each that may not be timed."""
    if not args.baseline or not parsers:
        return []
    refusals = []
    for model in dict.fromkeys(variant.model for variant in variants):
        fp32 = [v for v in variants if (v.model, v.precision, v.tail) == (model, "fp32", "kernel")]
        ours = next((parsers[v.label] for v in fp32 if v.label in parsers), None)
        bundle = next(v.bundle for v in variants if v.model == model)
        parse, reason = open_checked(bundle, args.threads, ours, samples[model].samples[0])
        if ours is not None:
            ours.times.samples_ms.clear()
        if parse is None:
            refusals.append(f"refused to time {model} in PyTorch: {reason}")
        else:
            targets.append(baseline_target(model, parse, samples[model]))
    return refusals


def _samples(args: argparse.Namespace, bundles: Sequence[Bundle]) -> dict[str, SampleSet]:
    """By model, the input's people; the frames and boxes are the same for all."""
    first = collect(open_source(args.input), open_detector(args), bundles[0].input_hw, args.frames)
    note(f"{first.people} people in {len(first.samples)} of {first.frames} frames")
    names = model_names(bundles)
    return {
        name: first if bundle.input_hw == bundles[0].input_hw else recrop(first, bundle.input_hw)
        for name, bundle in zip(names, bundles)
    }


def _check(
    args: argparse.Namespace, bundles: Sequence[Bundle], variants: Sequence[Variant], samples: dict[str, SampleSet]
) -> dict[str, Checked]:
    """By model, the engines that may be timed and why the others may not."""
    found = {}
    for model, bundle in zip(model_names(bundles), bundles):
        mine = [variant for variant in variants if variant.model == model]
        note(f"checks: {', '.join(variant.label for variant in mine)}")
        found[model] = check_variants(bundle, mine, args.threads, *samples[model].crops(_CHECK_CROPS))
        for label, check in found[model].checks.items():
            if not check.passed:
                note(f"refused to time {label}: {check.reason}")
    return found


def _parse_summary(path: str | None) -> dict[str, Any] | None:
    if path is None:
        return None
    summary = documents.read_json(Path(path))
    if not isinstance(summary.get("stages_ms"), dict):
        raise QanetError(
            f"{path} is not a summary of a parse",
            expected="what `qanet parse --json` prints, with stages_ms",
            got=f"keys {', '.join(summary)}",
            next_command="qanet parse INPUT --json > parse.json",
        )
    return summary


def _parts(
    args: argparse.Namespace,
    bundles: Sequence[Bundle],
    variants: Sequence[Variant],
    facts: dict[str, Any],
    samples: dict[str, SampleSet],
    checked: dict[str, Checked],
) -> dict[str, Any]:
    """What was known before the timing, as plain data."""
    described = [documents.describe_bundle(bundle) for bundle in bundles]
    agreement: dict[str, Any] = {}
    parts: dict[str, Any] = {
        "bundle": described[0],
        "bundles": described,
        "machine": facts,
        "agreement": agreement,
        "input": documents.describe_input(next(iter(samples.values())), Path(args.input).name),
        "checks": {},
        "executions": {},
        "open_ms": {},
    }
    for one in checked.values():
        for label in one.engines:
            if one.reference is not None and one.parsings[label] is not one.reference:
                agreement[label] = {"against": one.reference_name, **compare(one.reference, one.parsings[label])}
        parts["checks"] |= {label: check.to_json() for label, check in one.checks.items()}
        parts["executions"] |= one.executions
        parts["open_ms"] |= one.open_ms
    return parts


def _document(
    parts: dict[str, Any],
    variants: Sequence[Variant],
    session: harness.Session,
    parsers: dict[str, Parser],
    samples: dict[str, SampleSet],
    more: dict[str, harness.Session],
    warnings: list[str],
) -> dict[str, Any]:
    by_label = {variant.label: variant.precision for variant in variants}
    found = [
        *machine.warnings_of(parts["machine"]),
        *(execution_warning(by_label[label], parts["executions"][label]) for label in parsers),
        *next(iter(samples.values())).warnings,
        *warnings,
    ]
    stages_ms = {label: parser.times.samples_ms for label, parser in parsers.items()}
    return documents.build(parts, variants, session, stages_ms, [line for line in found if line], more)


def _pictures(
    args: argparse.Namespace, bundle: Bundle, samples: SampleSet, checked: Checked, parse_summary: dict[str, Any] | None
) -> Pictures:
    crops, _ = samples.crops(_CHECK_CROPS)
    overlay = Path(args.overlay) if args.overlay else None
    return gather_pictures(
        bundle, checked, samples.samples, crops, overlay, (parse_summary or {}).get("people_by_frame")
    )


def _print(args: argparse.Namespace, document: dict[str, Any]) -> None:
    for warning in document["warnings"]:
        note(f"warning: {warning}")
    if args.json:
        print(json.dumps(document, indent=1, allow_nan=False))
    else:
        print(output.text(document, Path(args.output)))
        print(output.summary_line(document, Path(args.output)))
