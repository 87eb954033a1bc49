"""One network's rows: every precision alone in the same rounds, then whole frames with every tail in the same rounds.

`qanet benchmark` puts all its targets into the same rounds, where a slow network spends the time of all. Here a network
has rounds of its own, and what is compared, its precisions and its tails, still shares them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qanet.benchmarks import harness
from qanet.benchmarks.check import Checked, check_variants
from qanet.benchmarks.document import accuracy_note
from qanet.benchmarks.harness import anchor_target, summarize
from qanet.benchmarks.samples import SampleSet
from qanet.benchmarks.schema import Execution
from qanet.benchmarks.targets import baseline_target, batches, engine_target, open_checked, parser_target, tail_target
from qanet.benchmarks.variants import Variant, list_variants
from qanet.benchmarks.verdict import paired_ratio, percentile_statistic
from qanet.bundle import Bundle
from qanet.runtime.parser import Parser

_CHECK_CROPS = 4  # a ResNet-50c takes half a second a crop
_MEDIAN = percentile_statistic(50)


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
        Plain data: model, input_hw, rows (a precision each), baseline (the PyTorch form's frames, None where it was not
        asked for or refused), refused (what was not timed, and why), interrupted, sessions: rounds and seconds of each.
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
    """One precision: what it is, and its medians."""
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
