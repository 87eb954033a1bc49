"""`python -m qanet.benchmarks.tail`: a table, or JSON, of every form of the tail on every case.

On a machine that others use, give it a CPU of its own (`taskset -c 1 python -m ...`): a library whose threads wait for
each other, as PyTorch's do, is slowed out of proportion when one of them has to share.
"""

from collections.abc import Sequence
from typing import Any

from qanet.benchmarks import machine
from qanet.benchmarks.tail.cases import Case, all_cases
from qanet.benchmarks.tail.forms import BASELINE, Form, find_forms
from qanet.benchmarks.tail.measure import measure_case, sweeps
from qanet.benchmarks.tail.memory import copy_bandwidth
from qanet.commandline import CommandParser, command_parser, emit, note, run_module, table
from qanet.errors import QanetError

GROUPS = ("people", "area", "image", "classes")
TIMED = (
    "one call: float32 logits (N, C, h, w) and boxes in host memory in, labels of each region and scores out; "
    "the baseline's labels are of the whole image"
)


def _arguments() -> CommandParser:
    parser = command_parser("benchmark-tail", "The kernel tail alone: its back-ends in turns on the same cases.")
    parser.prog = "python -m qanet.benchmarks.tail"
    parser.add_argument(
        "--baseline",
        nargs="?",
        const=BASELINE,
        metavar="MODULE:FUNCTION",
        help=f"time the straightforward PyTorch form too, or another function ({BASELINE})",
    )
    parser.add_argument("--cases", default=",".join(GROUPS), help=f"comma-separated groups ({','.join(GROUPS)})")
    parser.add_argument("--duration", type=float, default=5.0, metavar="S", help="seconds of timed rounds a case (5)")
    return parser


def main(argv: Sequence[str]) -> int:
    """Entry point; exit code 0, 1 when a form was refused or failed."""
    args = _arguments().parse_args(argv)
    groups = [group.strip() for group in args.cases.split(",")]
    unknown = [group for group in groups if group not in GROUPS]
    if unknown:
        raise QanetError("unknown cases", expected=f"of {', '.join(GROUPS)}", got=unknown[0])
    if not 0 < args.duration < float("inf"):
        raise QanetError("bad --duration", expected="seconds above 0", got=args.duration)
    facts = machine.describe()
    forms = find_forms(args.baseline)
    cases = [case for case in all_cases() if case.group in groups]
    document = measure(cases, forms, facts, args.duration)
    emit(args.json, document, text(document))
    return 0 if all(row["status"] == "ok" for row in document["rows"]) else 1


def measure(cases: Sequence[Case], forms: Sequence[Form], facts: dict[str, Any], duration_s: float) -> dict[str, Any]:
    """The document: machine, bandwidth in bytes a second, cases, rows and sweeps."""
    bandwidth = max(copy_bandwidth(threads) for threads in {1, facts["cpu"]["usable_cpus"]})
    rows = []
    for case in cases:
        note(f"{case.name}: {', '.join(form.name for form in forms)}")
        rows += measure_case(case, forms, bandwidth, duration_s)
    busy = machine.busy_warning(facts)
    return {
        "machine": facts,
        "timed": TIMED,
        "duration_s": duration_s,
        "copy_bytes_per_second": bandwidth,
        "cases": [case.describe() for case in cases],
        "rows": rows,
        "sweeps": sweeps(cases, rows),
        "warnings": [busy] if busy else [],
    }


def text(document: dict[str, Any]) -> str:
    """What a person reads on the terminal."""
    cpu = document["machine"]["cpu"]
    head = (
        f"{cpu['model'] or 'an unnamed CPU'}, {cpu['usable_cpus']} CPUs; a large copy moves "
        f"{document['copy_bytes_per_second'] / 1e9:.1f} GB/s; timed: {document['timed']}"
    )
    rows: list[tuple[object, ...]] = []
    for row in document["rows"]:
        figures = row["latency_ms"]
        cells = (
            *(_figure(figures.get(key)) for key in ("p50", "min", "mad")),
            figures["n"],
            _figure(row["speed_up"], "x"),
        )
        state = row["status"] if not row["reason"] else f"{row['status']}: {row['reason']}"
        rows.append(
            (
                row["case"],
                row["form"],
                *cells,
                _figure(row["peak_mib"]),
                _figure(row["floor_ms"]),
                _figure(row["times_floor"], "x"),
                state,
            )
        )
    header = ("case", "form", "p50 ms", "min ms", "MAD ms", "n", "speed-up", "peak MiB", "floor ms", "over floor", "")
    lines = [(s["form"], *(_figure(s[k]) for k in _SWEEP)) for s in document["sweeps"]]
    swept = table(lines, ("form", "ns a pixel", "constant ms", "r2 of the line", "longest / shortest over image sizes"))
    warnings = [f"warning: {line}" for line in document["warnings"]]
    return "\n\n".join([*warnings, head, table(rows, header), swept])


_SWEEP = ("ns_per_pixel", "constant_ms", "r2", "image_ratio")


def _figure(value: float | None, unit: str = "") -> str:
    return "-" if value is None else f"{value:.4g}{unit}"


if __name__ == "__main__":
    run_module(main)
