"""`benchmark`: gather people from an input, check every variant, time all variants in turns, write the report.

results = benchmark([open_bundle("ccp13-lite0")], BenchmarkOptions("clip.mp4", duration_s=10))
results.comparison[0].parser_ms.p50
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from qanet.benchmarks import harness, machine
from qanet.benchmarks.accuracy import measure_accuracies, open_data
from qanet.benchmarks.check import Checked, check_variants, compare, execution_warning
from qanet.benchmarks.document import complete, describe_bundle, describe_input
from qanet.benchmarks.options import BenchmarkOptions
from qanet.benchmarks.passes import Passes
from qanet.benchmarks.report.page import write_report
from qanet.benchmarks.report.pictures import Pictures, gather_pictures
from qanet.benchmarks.results import Results, read_json
from qanet.benchmarks.samples import SampleSet, collect, open_people_detector, recrop
from qanet.benchmarks.schema import Machine
from qanet.benchmarks.tables import write_results
from qanet.benchmarks.targets import baseline_target, build_targets, open_checked
from qanet.benchmarks.variants import Variant, list_variants, model_names, without_lacking
from qanet.bundle import Bundle
from qanet.errors import QanetError
from qanet.paths import check_outputs
from qanet.runtime.parser import Parser
from qanet.runtime.video.sources import open_source

CHECK_CROPS = 32

Log = Callable[[str], None]  # takes a line on the progress


def benchmark(bundles: Bundle | Sequence[Bundle], options: BenchmarkOptions, log: Log = lambda line: None) -> Results:
    """Measure every variant (model, precision, tail, device) of one or more bundles, all in the same rounds.

    Ctrl-C ends the measurement early: the results hold what was measured, and `timing.interrupted` is True.

    Args:
        log: called with a line before each step.
    Returns:
        The results. Where `options.output` names a folder, they are also written there, with a report.
    Raises:
        QanetError: an input, a precision, a detector or a data set is not to be had. A variant that cannot run, or
            whose output or precision is wrong, is no error: its check says so, and it is not timed.
    """
    bundles = [bundles] if isinstance(bundles, Bundle) else list(bundles)
    if bundles[0].view == "whole" and not (options.detector or options.boxes):
        options = replace(options, whole_image=True)
    variants, lacking = without_lacking(list_variants(bundles, options.precisions, options.tails, options.devices))
    data = open_data(options.data, options.data_format, options.split, bundles[0].labels) if options.data else None
    parse_summary = _read_summary(options.parse_summary)
    if options.output:
        written = [Path(options.output) / name for name in ("results.json", "results.csv", "report.html")]
        read = [options.parse_summary, options.overlay, options.boxes]
        check_outputs(written, read=read, inside=[bundle.path for bundle in bundles])
    facts = machine.describe()
    samples = _gather(bundles, options, log)
    checked = _check(bundles, variants, samples, options.threads, log)
    results = _start(bundles, samples, checked, Path(options.input).name)
    results.parse = parse_summary
    engines = {label: engine for one in checked.values() for label, engine in one.engines.items()}
    if data:
        results.accuracy = measure_accuracies(variants, engines, data, options.protocol, options.images, log)
    targets, parsers = build_targets(variants, engines, samples)
    refusals: list[str] = []
    if options.baseline and parsers:
        added, refusals = _baselines(variants, parsers, samples, options.threads)
        targets += added
    session = harness.Session([])
    if parsers:
        log(f"warming up and timing {len(targets)} targets for {options.duration_s:g} s")
        session = harness.run(targets, options.duration_s, options.rounds)
    passes = Passes(options, variants, engines, parsers, samples, session, log)
    more = passes.run(results)
    facts["after"] = machine.finish(facts)
    results.machine = Machine.from_json(facts)
    precisions = {variant.label: variant.precision for variant in variants}
    delivered = [execution_warning(precisions[label], results.executions[label]) for label in parsers]
    warnings = [
        *machine.warnings_of(facts),
        *(line for line in delivered if line),
        *next(iter(samples.values())).warnings,
        *lacking,
        *refusals,
        *passes.warnings,
    ]
    stages_ms = {label: parser.times.samples_ms for label, parser in parsers.items()}
    complete(results, variants, session, stages_ms, warnings, more)
    if options.output:
        first = model_names(bundles)[0]
        _write(results, options, bundles[0], samples[first], checked[first])
    return results


def _read_summary(path: Path | None) -> dict[str, Any] | None:
    """The document of a `qanet parse --json`."""
    if path is None:
        return None
    summary = read_json(path)
    if not isinstance(summary.get("stages_ms"), dict):
        raise QanetError(
            f"{path} is not a summary of a parse",
            expected="what `qanet parse --json` prints, with stages_ms",
            got=f"keys {', '.join(summary)}",
            next_command="qanet parse INPUT --json > parse.json",
        )
    return summary


def _gather(bundles: Sequence[Bundle], options: BenchmarkOptions, log: Log) -> dict[str, SampleSet]:
    """The input's people by model; the frames and boxes are the same for all."""
    detector = open_people_detector(options.detector, options.boxes, options.whole_image, options.threads)
    first = collect(open_source(options.input), detector, bundles[0], options.frames)
    log(f"{first.people} people in {len(first.samples)} of {first.frames} frames")
    return {
        name: first if bundle is bundles[0] else recrop(first, bundle)
        for name, bundle in zip(model_names(bundles), bundles)
    }


def _check(
    bundles: Sequence[Bundle], variants: Sequence[Variant], samples: dict[str, SampleSet], threads: int | None, log: Log
) -> dict[str, Checked]:
    """By model, the engines that may be timed and why the others may not."""
    found = {}
    for model, bundle in zip(model_names(bundles), bundles):
        own = [variant for variant in variants if variant.model == model]
        log(f"checks: {', '.join(variant.label for variant in own)}")
        found[model] = check_variants(bundle, own, threads, *samples[model].crops(CHECK_CROPS))
        for label, check in found[model].checks.items():
            if not check.passed:
                log(f"refused to time {label}: {check.reason}")
    return found


def _start(
    bundles: Sequence[Bundle], samples: dict[str, SampleSet], checked: dict[str, Checked], input_name: str
) -> Results:
    """Results with what is known before the timing."""
    described = [describe_bundle(bundle) for bundle in bundles]
    results = Results(bundle=described[0], bundles=described)
    results.input = describe_input(next(iter(samples.values())), input_name)
    for one in checked.values():
        for label in one.engines:
            if one.reference is not None and one.parsings[label] is not one.reference:
                results.agreement[label] = compare(one.reference, one.parsings[label], one.reference_name)
        results.checks |= one.checks
        results.executions |= one.executions
        results.open_ms |= one.open_ms
    return results


def _baselines(
    variants: Sequence[Variant], parsers: dict[str, Parser], samples: dict[str, SampleSet], threads: int | None
) -> tuple[list[harness.Target], list[str]]:
    """Each model's PyTorch form as a target, and a sentence for each that may not be timed."""
    targets, refusals = [], []
    for model in dict.fromkeys(variant.model for variant in variants):
        fp32 = [v for v in variants if (v.model, v.precision, v.tail) == (model, "fp32", "kernel")]
        ours = next((parsers[v.label] for v in fp32 if v.label in parsers), None)
        bundle = next(v.bundle for v in variants if v.model == model)
        parse, reason = open_checked(bundle, threads, ours, samples[model].samples[0])
        if ours is not None:
            ours.times.samples_ms.clear()
        if parse is None:
            refusals.append(f"refused to time {model} in PyTorch: {reason}")
        else:
            targets.append(baseline_target(model, parse, samples[model]))
    return targets, refusals


def _write(results: Results, options: BenchmarkOptions, bundle: Bundle, samples: SampleSet, checked: Checked) -> None:
    """results.json and results.csv, then the report, whose pictures may fail."""
    folder = Path(options.output or ".")
    write_results(folder, results)
    counts = (results.parse or {}).get("people_by_frame")
    try:
        crops, _ = samples.crops(CHECK_CROPS)
        pictures = gather_pictures(bundle, checked, samples.samples, crops, options.overlay, counts)
    except Exception as error:  # an engine that broke in the rounds breaks here too; the figures must be shown
        results.warnings.append(f"the report has no pictures: {type(error).__name__}: {error}")
        pictures = Pictures()
    write_report(folder / "report.html", results.to_json(), pictures)
