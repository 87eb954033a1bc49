"""How a benchmark becomes its `Results`: descriptions of what was measured, the comparison, the warnings."""

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from qanet._version import __version__
from qanet.benchmarks.accuracy import mark_front
from qanet.benchmarks.compare import PREEMPTED_SHARE, compare_models
from qanet.benchmarks.harness import Measurement, Session, latency_of, per_second
from qanet.benchmarks.results import Results, Scores, TargetResult, VariantResult
from qanet.benchmarks.samples import SampleSet
from qanet.benchmarks.schema import InputInfo, Interval, Timing
from qanet.benchmarks.targets import NOT_TIMED, TIMED
from qanet.benchmarks.variants import Variant, reference_of
from qanet.benchmarks.verdict import interval_of, paired_ratio, percentile_statistic
from qanet.bundle import Bundle

_MANIFEST_KEYS = ("name", "labels", "input_hw", "qam_weights", "pixel_score_threshold", "graphs", "made", "files")
_OURS = ("null", "anchor", "pipeline")  # kinds of targets whose stability says nothing about a variant
_NOTES = {"boxes": "boxes: ", "protocol": "protocol: ", "runtime": "on ", "note": ""}
_WALL_SHIFT_S = 0.5  # least shift of the calendar clock that is reported
_MEDIAN = percentile_statistic(50)


def describe_bundle(bundle: Bundle) -> dict[str, Any]:
    """The manifest's keys that a report shows; engines with their size, and their census without its list of layers."""
    described = {key: bundle.manifest[key] for key in _MANIFEST_KEYS if key in bundle.manifest}
    described["classes"] = list(bundle.labels.classes)
    described["accuracy"] = bundle.manifest["accuracy"]
    described["engines"] = []
    for entry in bundle.engines:
        census = {key: value for key, value in (entry.get("census") or {}).items() if key != "compute"}
        size = bundle.manifest["files"].get(entry.get("file"), {}).get("bytes")
        described["engines"].append({**entry, "census": census or None, "bytes": size})
    return described


def describe_input(samples: SampleSet, name: str) -> InputInfo:
    """The input and the people found in it."""
    sizes = sorted({sample.image.shape[:2] for sample in samples.samples})
    return InputInfo(
        name=name,
        kind=samples.kind,
        detector=samples.detector,
        frames=samples.frames,
        frames_with_people=len(samples.samples),
        people=samples.people,
        people_per_frame=round(samples.mean_people, 3),
        image_sizes_hw=[list(size) for size in sizes],
        decode_ms=latency_of(samples.decode_ms),
        detect_ms=latency_of(samples.detect_ms),
    )


def describe_target(measurement: Measurement, session: str = "rounds") -> TargetResult:
    """One target's figures and raw samples; `session` names the rounds that it was timed in."""
    target, samples = measurement.target, measurement.samples_ms
    is_work = target.kind not in ("null", "anchor")
    return TargetResult(
        name=target.name,
        kind=target.kind,
        variant=target.variant or None,
        precision=target.precision or None,
        runtime=target.runtime or None,
        batch=round(target.batch, 3),
        session=session,
        status="failed" if measurement.error else "measured" if samples else "not measured",
        error=measurement.error,
        warmup_calls=measurement.warmup_calls,
        warmup_stable=measurement.warmup_stable,
        first_call_ms=measurement.first_call_ms,
        latency_ms=latency_of(samples),
        cpu_ms=latency_of(measurement.cpu_ms),
        preempted_share=round(measurement.preempted / len(samples), 6) if samples else None,
        p50_interval_ms=interval_of(samples, _MEDIAN) if len(samples) > 1 else None,
        calls_per_second=per_second(samples),
        people_per_second=per_second(samples, target.batch) if is_work and target.kind != "pipeline" else None,
        samples_ms=[round(value, 6) for value in samples],
        cpu_samples_ms=[round(value, 6) for value in measurement.cpu_ms],
    )


def refused_target(variant: str, precision: str, reason: str | None) -> TargetResult:
    """The entry of a variant that failed its check."""
    name = f"{variant}, every target"
    return TargetResult(name, "refused", variant, precision, status="refused", error=reason)


def describe_timing(session: Session) -> Timing:
    """How the rounds went, and what is inside each kind of target."""
    return Timing(
        clock="time.perf_counter_ns, monotonic; on a GPU the stages are between CUDA events",
        order="every round calls every target once, in a new random order",
        rounds=session.rounds,
        seconds=round(session.seconds, 3),
        interrupted=session.interrupted,
        clock_steps=session.clock_steps,
        wall_shift_s=None if session.wall_shift_s is None else round(session.wall_shift_s, 6),
        timed=dict(TIMED),
        not_timed=list(NOT_TIMED),
    )


def complete(
    results: Results,
    variants: Sequence[Variant],
    session: Session,
    stages_ms: Mapping[str, Mapping[str, Sequence[float]]],
    warnings: Sequence[str],
    more_sessions: Mapping[str, Session] | None = None,
) -> Results:
    """Fill in what follows from the rounds: timing, targets, stages, comparison, models and warnings.

    Args:
        results: holds the input, the checks, and the results of all passes; changed in place.
        stages_ms: label -> stage -> samples in milliseconds.
        warnings: sentences known already; they come first.
        more_sessions: name -> rounds of other targets, timed after the main ones.
    Returns:
        The same results.
    """
    more = more_sessions or {}
    precisions = {variant.label: variant.precision for variant in variants}
    results.qanet_edge = __version__
    results.created = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    results.timing = describe_timing(session)
    targets = [describe_target(m) for m in session.measurements]
    targets += [describe_target(m, name) for name, other in more.items() for m in other.measurements]
    for target in targets:
        target.peak_extra_mib = results.memory.extra_mib.get(target.name) if results.memory else None
    refused = {label: check for label, check in results.checks.items() if not check.passed}
    targets += [refused_target(label, precisions[label], check.reason) for label, check in refused.items()]
    results.targets = targets
    results.stages = {
        label: {stage: latency_of(samples) for stage, samples in stages.items()} for label, stages in stages_ms.items()
    }
    results.comparison = compare_variants(results, variants)
    results.models = [] if session.clock_steps else compare_models(results.targets, variants)
    results.warnings = [*warnings, *_target_warnings(targets), *_clock_warnings(session)]
    if session.interrupted or any(other.interrupted for other in more.values()):
        results.timing.interrupted = True
        results.warnings.append(f"interrupted after {session.rounds} rounds: these are the figures until then")
    return results


def compare_variants(results: Results, variants: Sequence[Variant]) -> list[VariantResult]:
    """A row per variant: latencies, ratios to FP32 measured in the same rounds, accuracy, agreement."""
    rows = [_compared(results, variant, reference_of(variant, variants)) for variant in variants]
    rows += [_baseline_row(target) for target in results.targets if target.kind == "baseline"]
    return mark_front(rows)


def _compared(results: Results, variant: Variant, reference: Variant | None) -> VariantResult:
    label = variant.label
    execution = results.executions.get(label)
    # INT8 has two graphs, each with an accuracy card of its own.
    card = variant.bundle.manifest["accuracy"].get((execution and execution.graph) or variant.precision)
    card = card if isinstance(card, dict) else {}
    row = VariantResult(
        label=label,
        model=variant.model,
        precision=variant.precision,
        tail=variant.tail,
        device=variant.device,
        input_hw=list(variant.bundle.input_hw),
        status="measured" if results.checks[label].passed else "refused",
        execution=execution,
        open_ms=results.open_ms.get(label),
        accuracy=Scores(card.get("miou"), card.get("pixel_accuracy")),
        accuracy_note=accuracy_note(card),
        measured_accuracy=results.accuracy.get(label),
        agreement=results.agreement.get(label),
        energy=results.energy.by_variant.get(label) if results.energy else None,
    )
    for kind in ("engine", "tail", "parser"):
        own, other = (results.target(kind, v.label) if v else None for v in (variant, reference))
        ratio = _speed_up(results, own, other)
        setattr(row, f"{kind}_ms", own.latency_ms if own else None)
        setattr(row, f"{kind}_speed_up", round(ratio.value, 4) if ratio else None)
        setattr(row, f"{kind}_speed_up_interval", ratio)
    baseline = results.target("baseline", f"{variant.model} in PyTorch")
    row.over_baseline = _speed_up(results, results.target("parser", label), baseline)
    if row.measured_accuracy:  # goes before the card
        for key in ("miou", "pixel_accuracy"):
            metric = row.measured_accuracy.values.get(key)
            if metric and metric.value is not None:
                setattr(row.accuracy, key, metric.value)
                row.accuracy_note = row.measured_accuracy.note
    return row


def _baseline_row(target: TargetResult) -> VariantResult:
    """The PyTorch form as a row of its own, without what only our variants have."""
    label = target.variant or ""
    latency = target.latency_ms if target.samples_ms else None
    model = label.removesuffix(" in PyTorch")
    return VariantResult(label, model, "fp32", "pytorch", "cpu", status=target.status, parser_ms=latency)


def _speed_up(results: Results, own: TargetResult | None, other: TargetResult | None) -> Interval | None:
    """How many times as long the other target takes, by the medians of the same rounds."""
    if not own or not other or not own.latency_ms.p50 or own.session != other.session:
        return None
    if results.timing.clock_steps:
        return None  # samples were dropped, so the rounds do not pair any more
    return paired_ratio(other.samples_ms, own.samples_ms, _MEDIAN)


def accuracy_note(card: dict[str, Any]) -> str | None:
    """On which data and how an accuracy card was measured; None where the card has no such facts."""
    data = " ".join(str(card[key]) for key in ("data", "split") if card.get(key))
    parts = [data] if data else []
    if card.get("images"):
        parts.append(f"{card['images']} images")
    parts += [f"{label}{card[key]}" for key, label in _NOTES.items() if card.get(key)]
    return ", ".join(parts) or None


def _target_warnings(targets: Sequence[TargetResult]) -> list[str]:
    lines = [f"{t.name}: {t.status}: {t.error}" for t in targets if t.error]
    shared = [t.name for t in targets if (t.preempted_share or 0) > PREEMPTED_SHARE and t.kind not in _OURS]
    if shared:
        lines.append(
            f"other processes interrupted more than {PREEMPTED_SHARE:.0%} of the calls of {len(shared)} targets: those "
            "latencies are of a shared machine; the processor time leaves the other processes out"
        )
    shaky = [t.name for t in targets if t.status == "measured" and not t.warmup_stable and t.kind not in _OURS]
    if shaky:
        lines.append(f"the latency still moved when the warm-up ended: {', '.join(shaky)}")
    return lines


def _clock_warnings(session: Session) -> list[str]:
    lines = []
    if session.clock_steps:
        lines.append(f"the clock went backwards: {session.clock_steps} samples were dropped, ratios are not paired")
    if session.wall_shift_s is not None and abs(session.wall_shift_s) > _WALL_SHIFT_S:
        lines.append(
            f"the machine's calendar clock was set by {session.wall_shift_s:+.1f} s meanwhile; the latencies use the "
            "monotonic clock and stand"
        )
    return lines
