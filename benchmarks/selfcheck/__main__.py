"""`python -m qanet.benchmarks.selfcheck NAME.qanet`: proves or disproves what the benchmark promises, on this machine.

Harness overhead below 20 us an iteration; medians within 2% of the runtime's own benchmark program on the same engine
file; ten repeats of a comparison whose verdict never flips; an injected 5% slow-down found in nine of ten. Exit code 1
where one of them does not hold.
"""

import json
from collections.abc import Sequence
from functools import partial
from typing import Any

from qanet.benchmarks import machine
from qanet.benchmarks.selfcheck.one_run import open_target, run_once
from qanet.benchmarks.selfcheck.overhead import LIMIT_US, measure_overhead
from qanet.benchmarks.selfcheck.program import AGREEMENT, compare_with_program
from qanet.benchmarks.selfcheck.repeats import same_rounds, separate_runs
from qanet.bundle import open_bundle
from qanet.commandline import CommandParser, command_parser, note, run_module, table
from qanet.errors import QanetError

PARTS = ("overhead", "program", "separate", "rounds")


def _arguments() -> CommandParser:
    parser = command_parser("selfcheck", "What the benchmark promises, proved on this machine.")
    parser.prog = "python -m qanet.benchmarks.selfcheck"
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
    document = measure(args, parts)
    print(json.dumps(document, indent=1, allow_nan=False) if args.json else text(document))
    return 0 if all(holds(name, document[name]) for name in parts) else 1


def measure(args: Any, parts: Sequence[str]) -> dict[str, Any]:
    """Every part that was asked for, as plain data by its name."""
    bundle = open_bundle(args.model)
    facts = machine.describe()
    document: dict[str, Any] = {
        "kind": "qanet selfcheck",
        "machine": facts,
        "model": bundle.name,
        "precision": args.precision,
        "threads": args.threads,
        "slowdown": args.slowdown,
    }
    reopen = partial(open_target, bundle, args.precision, args.device, args.threads)
    engine, target = reopen()
    for part in parts:
        note(f"measuring: {part}")
        if part == "overhead":
            document[part] = measure_overhead(target, args.seconds)
        elif part == "program":
            document[part] = compare_with_program(bundle, engine, target, args.pairs, args.seconds, args.threads)
        elif part == "separate":
            once = partial(
                run_once, bundle.path, args.precision, args.seconds, device=args.device, threads=args.threads
            )
            document[part] = separate_runs(once, args.repeats, args.slowdown)
        else:
            document[part] = same_rounds(lambda: reopen()[1], args.repeats, args.slowdown, args.seconds)
    facts["after"] = machine.finish(facts)
    document["warnings"] = machine.warnings_of(facts)
    return document


def holds(name: str, found: dict[str, Any]) -> bool:
    """Whether a part's promise is kept."""
    keys = {"overhead": ("fits",), "program": ("agrees",)}.get(name, ("never_flips", "finds"))
    return all(found[key] for key in keys)


def text(document: dict[str, Any]) -> str:
    """A row a promise, and the machine."""
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
