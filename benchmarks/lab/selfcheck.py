"""The benchmark on trial: does it keep its promises on this machine?

    python -m qanet.benchmarks.lab.selfcheck NAME.qanet --precision int8

Harness overhead below 20 us per iteration; medians within 2% of the runtime's own benchmark program on the same engine
file; ten repeats of a comparison whose verdict never flips; an injected 5% slow-down found in nine of ten. Exit code 1
where one of them does not hold.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from qanet.benchmarks import harness, machine
from qanet.benchmarks.compare import PREEMPTED_SHARE, compare_results
from qanet.benchmarks.harness import anchor_target, summarize
from qanet.benchmarks.lab.selfcheck_processes import AGREEMENT, compare_with_program, open_target, run_once, slowed
from qanet.benchmarks.verdict import CANNOT_TELL, FASTER, SLOWER, Run, Verdict, judge_paired, percentile_statistic
from qanet.bundle import open_bundle
from qanet.commandline import CommandParser, command_parser, note, run_module, table
from qanet.errors import QanetError

LIMIT_US = 20.0
FOUND_SHARE = 0.9  # of the repeats in which the slow-down has to be found
_MEDIAN = percentile_statistic(50)
RunOnce = Callable[[float], dict[str, Any]]  # slow-down to a result
OpenTarget = Callable[[], harness.Target]
PARTS = ("overhead", "program", "separate", "rounds")


def measure_overhead(target: harness.Target, seconds: float) -> dict[str, Any]:
    """The null target beside a real one, whose work has just emptied the caches as it does in a benchmark.

    Returns:
        Plain data, microseconds: inside: of a sample, by the null target; around: processor time of a call's
        bookkeeping outside of its sample; fits: whether both together stay below LIMIT_US.
    """
    marks: list[int] = []
    started = replace(target, started=lambda: marks.append(time.process_time_ns()))
    session = harness.run([harness.null_target(), started], seconds)
    spent_ms = (time.process_time_ns() - marks[0]) / 1e6 if marks else 0.0
    if session.interrupted:
        raise KeyboardInterrupt
    null, work = session.measurements
    calls = len(null.samples_ms) + len(work.samples_ms)
    around_us = max(spent_ms - sum(null.cpu_ms) - sum(work.cpu_ms), 0.0) * 1e3 / max(calls, 1)
    inside_us = {key: value * 1e3 for key, value in summarize(null.samples_ms).items() if key in ("p50", "p99", "mean")}
    return {
        "calls": calls,
        "inside_us": inside_us,
        "around_us": around_us,
        "fits": bool(null.samples_ms) and inside_us["p50"] + around_us < LIMIT_US,
    }


def separate_runs(run_once: RunOnce, repeats: int, slowdown: float) -> dict[str, Any]:
    """Runs A, slowed, A, slowed, ..., A: each A against the next, and against the slowed one between them.

    Returns:
        See `summary`; a repeat's verdict is that of the median latency, a false one any metric's.
    """
    same, changed = [], []
    before = run_once(0.0)
    for _ in range(repeats):
        slow = run_once(slowdown)
        after = run_once(0.0)
        same.append(compare_results(before, after)["rows"])
        changed.append(compare_results(before, slow)["rows"])
        before = after
    return summary(same, changed)


def same_rounds(open_target: OpenTarget, repeats: int, slowdown: float, seconds: float) -> dict[str, Any]:
    """Three targets in the same rounds: an engine, the same opened again, the same opened again and slowed.

    Args:
        open_target: opens the engine anew.
        seconds: of each repeat's rounds.
    """
    same, changed = [], []
    for _ in range(repeats):
        # An engine each, as two models have: one called twice as often finds its weights in the cache.
        first, again, slow = open_target(), open_target(), slowed(open_target(), slowdown)
        targets = [replace(t, name=name) for name, t in (("first", first), ("again", again), ("slowed", slow))]
        session = harness.run([anchor_target(), *targets], seconds)
        if session.interrupted:
            raise KeyboardInterrupt
        old, new, longer = session.measurements[1:]
        same.append([_row("p50 ms", _paired(old, new))])
        changed.append([_row("p50 ms", _paired(old, longer))])
    return summary(same, changed)


def _paired(old: harness.Measurement, new: harness.Measurement) -> Verdict:
    """By the rule of `compare.models`: processor time where others interrupted the calls."""
    shared = any(m.preempted > PREEMPTED_SHARE * max(len(m.samples_ms), 1) for m in (old, new))
    runs = [Run(m.samples_ms, (), m.cpu_ms if shared else ()) for m in (old, new)]
    return judge_paired(runs[0], runs[1], _MEDIAN)


def _row(metric: str, verdict: Verdict) -> dict[str, Any]:
    return {
        "metric": metric,
        "verdict": verdict.verdict,
        "reason": verdict.reason,
        "ratio": verdict.ratio.to_json() if verdict.ratio else None,
    }


def summary(same: list[list[dict[str, Any]]], changed: list[list[dict[str, Any]]]) -> dict[str, Any]:
    """Counts of the repeats' verdicts.

    Args:
        same, changed: a repeat's rows, of nothing changed and of the slow-down; each has a "p50 ms" row.
    Returns:
        Plain data: same and changed: verdict of the median -> repeats; ratios of the medians; false_calls: rows that
        call a change where there is none, or the wrong one; never_flips; found: repeats in which the slow-down was
        found; finds: whether that is often enough.
    """
    medians = [[next(row for row in rows if row["metric"] == "p50 ms") for rows in kind] for kind in (same, changed)]
    false_calls = sum(row["verdict"] != CANNOT_TELL for rows in same for row in rows)
    false_calls += sum(row["verdict"] == FASTER for rows in changed for row in rows)
    found = sum(row["verdict"] == SLOWER for row in medians[1])
    return {
        "repeats": len(same),
        "same": dict(Counter(row["verdict"] for row in medians[0])),
        "changed": dict(Counter(row["verdict"] for row in medians[1])),
        "same_ratios": [row["ratio"] for row in medians[0]],
        "changed_ratios": [row["ratio"] for row in medians[1]],
        "reasons": sorted({row["reason"] for rows in medians for row in rows if row["reason"]}),
        "false_calls": false_calls,
        "never_flips": false_calls == 0,
        "found": found,
        "finds": found >= FOUND_SHARE * len(changed),
    }


def _arguments() -> CommandParser:
    parser = command_parser("selfcheck", "Whether the benchmark keeps its promises on this machine.")
    parser.prog = "python -m qanet.benchmarks.lab.selfcheck"
    parser.add_argument("model", metavar="NAME.qanet", help="with a built engine")
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--only", default=",".join(PARTS), help=f"comma-separated ({','.join(PARTS)})")
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        metavar="N",
        help="CPU threads of the engine (1: the injected slow-down takes one processor, as the engine then does)",
    )
    parser.add_argument("--pairs", type=int, default=8, metavar="N", help="turns with the runtime's program (8)")
    parser.add_argument("--repeats", type=int, default=10, metavar="N", help="of each comparison (10)")
    parser.add_argument("--seconds", type=float, default=10.0, metavar="S", help="of each turn and each run (10)")
    parser.add_argument("--slowdown", type=float, default=0.05, metavar="SHARE", help="to inject (0.05)")
    return parser


def main(argv: Sequence[str]) -> int:
    """Entry point; 0 where everything that was asked for holds, else 1."""
    args = _arguments().parse_args(argv)
    parts = list(dict.fromkeys(part.strip() for part in args.only.split(",") if part.strip()))
    unknown = [part for part in parts if part not in PARTS]
    if unknown or not parts:
        raise QanetError("unknown part", expected=f"of {', '.join(PARTS)}", got=unknown[0] if unknown else args.only)
    for name in ("threads", "pairs", "repeats"):
        if getattr(args, name) < 1:
            raise QanetError(f"bad --{name}", expected="1 or more", got=getattr(args, name))
    for name in ("seconds", "slowdown"):
        if not 0 < getattr(args, name) < float("inf"):
            raise QanetError(f"bad --{name}", expected="above 0", got=getattr(args, name))
    document = measure(
        args.model,
        parts,
        precision=args.precision,
        device=args.device,
        threads=args.threads,
        pairs=args.pairs,
        repeats=args.repeats,
        seconds=args.seconds,
        slowdown=args.slowdown,
    )
    print(json.dumps(document, indent=1, allow_nan=False) if args.json else text(document))
    return 0 if all(holds(name, document[name]) for name in parts) else 1


def measure(
    model: str,
    parts: Sequence[str],
    *,
    precision: str,
    device: str,
    threads: int,
    pairs: int,
    repeats: int,
    seconds: float,
    slowdown: float,
) -> dict[str, Any]:
    """Every part of `parts` as plain data by its name; the parameters are the options of the command."""
    bundle = open_bundle(model)
    facts = machine.describe()
    document: dict[str, Any] = {
        "kind": "qanet selfcheck",
        "machine": facts,
        "model": bundle.name,
        "precision": precision,
        "threads": threads,
        "slowdown": slowdown,
    }
    reopen = partial(open_target, bundle, precision, device, threads)
    engine, target = reopen()
    for part in parts:
        note(f"measuring: {part}")
        if part == "overhead":
            document[part] = measure_overhead(target, seconds)
        elif part == "program":
            document[part] = compare_with_program(bundle, engine, target, pairs, seconds, threads)
        elif part == "separate":
            once = partial(run_once, bundle.path, precision, seconds, device=device, threads=threads)
            document[part] = separate_runs(once, repeats, slowdown)
        else:
            document[part] = same_rounds(lambda: reopen()[1], repeats, slowdown, seconds)
    facts["after"] = machine.finish(facts)
    document["warnings"] = machine.warnings_of(facts)
    return document


def holds(name: str, found: dict[str, Any]) -> bool:
    """Whether a part's promise is kept."""
    keys = {"overhead": ("fits",), "program": ("agrees",)}.get(name, ("never_flips", "finds"))
    return all(found[key] for key in keys)


def text(document: dict[str, Any]) -> str:
    """A row per promise, and the machine."""
    rows = [
        (name, "holds" if holds(name, document[name]) else "DOES NOT HOLD", _words(name, document[name]))
        for name in PARTS
        if name in document
    ]
    cpu = document["machine"]["cpu"]["model"] or "an unnamed CPU"
    head = f"{document['model']} {document['precision']}, {document['threads']} threads, {cpu}"
    warnings = [f"warning: {line}" for line in document["warnings"]]
    return "\n\n".join([head, table(rows, ("promise", "", "measured")), *warnings])


def _words(name: str, found: dict[str, Any]) -> str:
    if name == "overhead":
        inside = found["inside_us"]
        return (
            f"{inside['p50']:.2f} us p50 ({inside['p99']:.2f} p99) inside a sample, {found['around_us']:.2f} around; "
            f"the limit is {LIMIT_US:g} together"
        )
    if name == "program":
        ratio = found["ratio"]
        return (
            f"harness over {found['program']}: {ratio['value']:.4f} ({ratio['low']:.4f} to {ratio['high']:.4f}) of "
            f"{len(found['program_ms'])} pairs, {_range(found['harness_ms'])} and {_range(found['program_ms'])} "
            f"ms; {AGREEMENT:.0%} are allowed"
        )
    return (
        f"nothing changed: {_counts(found['same'])}; slowed: {_counts(found['changed'])}; false calls of any metric: "
        f"{found['false_calls']}" + (f"; {'; '.join(found['reasons'])}" if found["reasons"] else "")
    )


def _range(values: Sequence[float]) -> str:
    return f"{min(values):.4g} to {max(values):.4g}"


def _counts(found: dict[str, int]) -> str:
    return ", ".join(f"{verdict} {count}" for verdict, count in sorted(found.items()))


if __name__ == "__main__":
    run_module(main)
