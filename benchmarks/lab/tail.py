"""The kernel tail alone (logits and boxes in, labels and scores out): every back-end in turns on the same cases.

    taskset -c 1 python -m qanet.benchmarks.lab.tail --baseline --cases people

On a machine that others use, give it a CPU of its own: a library whose threads wait for each other, as PyTorch's do, is
slowed out of proportion when one of them has to share.
"""

import importlib
import time
import tracemalloc
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from qanet import quality
from qanet.benchmarks import harness, machine
from qanet.benchmarks.harness import summarize
from qanet.benchmarks.score_cases import Case, all_cases, difference
from qanet.commandline import CommandParser, command_parser, emit, note, run_module, table
from qanet.errors import QanetError
from qanet.quality import PixelScores
from qanet.runtime.kernels import BACKENDS, choose_kernels

BASELINE = "torch"  # PyTorch, as the official code computes it; needs the export extra
_MIB = 1 << 20
_STATUS = Path("/proc/self/status")
_PEAK_RESET = Path("/proc/self/clear_refs")
GROUPS = ("people", "area", "image", "classes")
TIMED = (
    "one call: float32 logits (N, C, h, w) and boxes in host memory in, labels of each region and scores out; "
    "the baseline's labels are of the whole image"
)
_SWEEP = ("ns_per_pixel", "constant_ms", "r2", "image_ratio")


@dataclass(frozen=True)
class Form:
    """A way to compute the tail.

    Attributes:
        name: "numpy", "native", ...; "baseline".
        backend: of `qanet.runtime.kernels`; "" for another function.
        target: BASELINE, or "module:function" of another function, imported when it is first called.
    """

    name: str
    backend: str = ""
    target: str = ""

    def __call__(self, arguments: dict[str, Any]) -> PixelScores:
        """Labels and scores for the keyword arguments of a case."""
        if self.backend:
            return choose_kernels(self.backend).pixel_score(**arguments)
        if self.target == BASELINE:
            from qanet.export.baseline import pixel_score

            return pixel_score(**arguments)
        module, _, name = self.target.partition(":")
        scored: PixelScores = getattr(importlib.import_module(module), name)(**arguments)
        return scored


def find_forms(baseline: str | None) -> list[Form]:
    """The back-ends that answer a trivial call, and the baseline when it was asked for.

    Raises:
        QanetError: a baseline that cannot be imported or does not answer.
    """
    trivial = {"logits": np.zeros((1, 2, 1, 1), np.float32), "boxes": [[0, 0, 4, 4]], "image_size": (4, 4)}
    forms = []
    for name in dict.fromkeys(("numpy", *BACKENDS)):
        try:
            Form(name, backend=name)(trivial)
        except QanetError:  # not built, or no such device here
            continue
        forms.append(Form(name, backend=name))
    if baseline is not None:
        form = Form("baseline", target=baseline)
        try:
            form(trivial)
        except (ImportError, AttributeError, ValueError) as error:
            raise QanetError(
                f"the baseline {baseline} is not available",
                expected="module:function that is installed",
                got=error,
                next_command="pip install 'qanet-edge[export]'",
            ) from error
        forms.append(form)
    return forms


def refusal(form: Form, case: Case, arguments: dict[str, Any]) -> str | None:
    """Why a form may not be timed on a case: its labels or scores are not the reference's; None when they are."""
    try:
        got = form(arguments)
    except Exception as error:  # whatever a library raises: the other forms go on
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return difference(got, quality.pixel_score(**arguments))


def copy_bandwidth(threads: int, mib: int = 256, repeats: int = 5) -> float:
    """Bytes per second that memory moves in a large copy, read and written bytes counted; the best of `repeats`."""
    source = np.ones(mib * _MIB, np.uint8)
    target = np.zeros_like(source)
    parts = list(zip(np.array_split(source, threads), np.array_split(target, threads)))

    def copy(pair: tuple[Any, Any]) -> None:
        np.copyto(pair[1], pair[0])

    with ThreadPoolExecutor(threads) as pool:
        best = min(_seconds(lambda: list(pool.map(copy, parts))) for _ in range(repeats))
    return 2 * source.nbytes / best


def _seconds(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def floor_ms(case: Case, bandwidth: float) -> float:
    """Milliseconds to read the logits and write the labels once at `bandwidth` bytes per second."""
    return case.floor_bytes() / bandwidth * 1e3


def peak_mib(form: Form, case: Case) -> tuple[float | None, str]:
    """The most extra memory one call takes, and how that was measured; None where the system does not report it.

    NumPy's memory is traced by Python's allocator, a library's is not: its call runs in a process of its own,
    and the peak of its resident memory taken.
    """
    if form.name == "numpy":
        return _traced_mib(form, case), "tracemalloc"
    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            return pool.submit(resident_mib, form, case).result(timeout=300), "resident memory"
    except Exception:  # the process died or does not answer; the latency stands without it
        return None, "resident memory"


def _traced_mib(form: Form, case: Case) -> float:
    arguments = case.arguments()
    tracemalloc.start()
    try:
        form(arguments)
        return tracemalloc.get_traced_memory()[1] / _MIB
    finally:
        tracemalloc.stop()


def resident_mib(form: Form, case: Case) -> float | None:
    """Growth of this process's resident memory, at its peak, over one call; the libraries are loaded before."""
    arguments = case.arguments()
    small = Case("small", "", case.num_classes, (2, 2), (8, 8), ((0, 0, 8, 8),))
    form(small.arguments())
    try:
        _PEAK_RESET.write_text("5")  # the kernel forgets the peak so far
        before = _status_kib("VmRSS")
        form(arguments)
        return max(_status_kib("VmHWM") - before, 0) / 1024
    except (OSError, KeyError):
        return None


def _status_kib(key: str) -> int:
    return int(dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())[key].split()[0])


Peak = Callable[[Form, Case], tuple[float | None, str]]


def measure_case(
    case: Case,
    forms: Sequence[Form],
    bandwidth: float,
    duration_s: float,
    peak: Peak = peak_mib,
    clock: harness.Clock = time.perf_counter_ns,
) -> list[dict[str, Any]]:
    """Check every form against the reference and time those that pass in turns; a row per form.

    Args:
        bandwidth: bytes per second of a large copy.
        duration_s: seconds of timed rounds.
        peak: measures the extra memory of a call: MiB, and how it was measured.
    Returns:
        Plain data: case, form, status ("ok", "refused", "failed"), reason, latency_ms, speed_up over the baseline of
        the same rounds, peak_mib and peak_by, floor_ms and times_floor. What was not measured is None.
    """
    arguments = case.arguments()
    refusals = {form.name: refusal(form, case, arguments) for form in forms}
    targets = [_target(form, case, arguments) for form in forms if refusals[form.name] is None]
    session = harness.Session([])
    if targets:
        session = harness.run(targets, duration_s, clock=clock)
        if session.interrupted:
            raise KeyboardInterrupt
    measured = {m.target.name: m for m in session.measurements}
    rows = []
    for form in forms:
        latency = summarize(measured[form.name].samples_ms) if form.name in measured else {"n": 0}
        failed = measured[form.name].error if form.name in measured else None
        status = "refused" if refusals[form.name] else "failed" if failed else "ok"
        mib, by = peak(form, case) if status == "ok" else (None, "")
        rows.append(
            {
                "case": case.name,
                "form": form.name,
                "status": status,
                "reason": refusals[form.name] or failed,
                "latency_ms": latency,
                "peak_mib": mib,
                "peak_by": by,
            }
        )
    return with_ratios(rows, floor_ms(case, bandwidth))


def _target(form: Form, case: Case, arguments: dict[str, Any]) -> harness.Target:
    return harness.Target(form.name, lambda number: form(arguments), "tail", batch=len(case.boxes))


def with_ratios(rows: list[dict[str, Any]], floor: float) -> list[dict[str, Any]]:
    """The rows of one case with their ratios of medians: to the baseline's, and to the floor (milliseconds)."""
    medians = {row["form"]: row["latency_ms"].get("p50") for row in rows}
    baseline = medians.get("baseline")
    for row in rows:
        median = medians[row["form"]]
        row["speed_up"] = baseline / median if baseline and median else None
        row["floor_ms"] = floor
        row["times_floor"] = median / floor if median else None
    return rows


def sweeps(cases: Sequence[Case], rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per form, whether time is linear in the people's area and constant in the image's size.

    Returns:
        Plain data per form: form; ns_per_pixel, constant_ms and r2 of the straight line through the "area" points;
        image_ratio, the longest over the shortest median of the "image" points. None where points are missing.
    """
    found = []
    for form in dict.fromkeys(row["form"] for row in rows):
        medians = {row["case"]: row["latency_ms"].get("p50") for row in rows if row["form"] == form}
        area = [(case.area, medians[case.name]) for case in cases if case.group == "area" and medians.get(case.name)]
        image = [medians[case.name] for case in cases if case.group == "image" and medians.get(case.name)]
        found.append({"form": form, **straight_line(area), "image_ratio": max(image) / min(image) if image else None})
    return found


def straight_line(points: Sequence[tuple[float, float]]) -> dict[str, float | None]:
    """Least squares through (pixels, milliseconds): ns_per_pixel, constant_ms, r2; None for fewer than three."""
    if len(points) < 3:
        return {"ns_per_pixel": None, "constant_ms": None, "r2": None}
    x, y = np.asarray(points, np.float64).T
    slope, constant = np.polyfit(x, y, 1)
    rest, spread = ((y - slope * x - constant) ** 2).sum(), ((y - y.mean()) ** 2).sum()
    return {
        "ns_per_pixel": float(slope * 1e6),
        "constant_ms": float(constant),
        "r2": float(1 - rest / spread) if spread else None,
    }


def _arguments() -> CommandParser:
    parser = command_parser("benchmark-tail", "The kernel tail alone: its back-ends in turns on the same cases.")
    parser.prog = "python -m qanet.benchmarks.lab.tail"
    parser.add_argument(
        "--baseline",
        nargs="?",
        const=BASELINE,
        metavar="MODULE:FUNCTION",
        help=f"time the straightforward PyTorch form too, or another function ({BASELINE})",
    )
    parser.add_argument("--cases", default=",".join(GROUPS), help=f"comma-separated groups ({','.join(GROUPS)})")
    parser.add_argument("--duration", type=float, default=5.0, metavar="S", help="seconds of timed rounds per case (5)")
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
    """The document: machine, bandwidth in bytes per second, cases, rows and sweeps."""
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
    """The tables for a terminal."""
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
    swept = table(
        lines, ("form", "ns per pixel", "constant ms", "r2 of the line", "longest / shortest over image sizes")
    )
    warnings = [f"warning: {line}" for line in document["warnings"]]
    return "\n\n".join([*warnings, head, table(rows, header), swept])


def _figure(value: float | None, unit: str = "") -> str:
    return "-" if value is None else f"{value:.4g}{unit}"


if __name__ == "__main__":
    run_module(main)
