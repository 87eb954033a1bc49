"""`python -m qanet.benchmarks.gpu_check`, or `make gpu-check`: every check that needs a GPU.

A step that fails is recorded with its message, and the rest goes on. The results and a description of the machine are
written to benchmarks/results/GPU-DATE.json and .txt, ready to be sent.
"""

import datetime
import json
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from qanet.benchmarks.gpu_check.steps import Runner, Step, answer_line, find_gpu, in_own_process, run_command, run_step
from qanet.bundle import PRECISIONS
from qanet.commandline import CommandParser, command_parser, emit, note, run_module, table
from qanet.errors import QanetError
from qanet.files import write_text
from qanet.scratch import scratch_folder

_LIMIT_S = 1800.0  # of a step in its own process


def _arguments() -> CommandParser:
    parser = command_parser("gpu-check", "Test and time everything that needs a GPU, on this machine's.")
    parser.prog = "python -m qanet.benchmarks.gpu_check"
    parser.add_argument(
        "--output",
        default="benchmarks/results",
        metavar="DIR",
        help="folder for the results (default: benchmarks/results)",
    )
    parser.add_argument(
        "--model", default="ccp13-lite0", metavar="NAME.qanet", help="bundle to build engines of (default: ccp13-lite0)"
    )
    parser.add_argument("--step", choices=("kernels", "parser"), help="run only this step, and print its JSON")
    parser.add_argument("--bundle", default="", metavar="DIR", help="with --step parser: the bundle with its engine")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp16", help="with --step parser")
    return parser


def main(argv: Sequence[str], runner: Runner = run_command) -> int:
    """Entry point; exit code 0, or 1 when a step failed.

    Raises:
        QanetError: there is no GPU.
    """
    args = _arguments().parse_args(argv)
    gpu = find_gpu()
    if gpu is None:
        raise QanetError(
            "no NVIDIA GPU in this machine: there is nothing to check",
            expected="a GPU and its driver",
            next_command="make gpu-check, on a machine that has one",
        )
    if args.step is not None:
        print(answer_line(_own_step(args.step, args.bundle, args.precision, args.model)))
        return 0
    root = Path(__file__).resolve().parents[2]
    with scratch_folder() as folder:
        document = check(gpu, args.model, folder, root, runner)
    name = re.sub(r"[^a-z0-9]+", "-", document["gpu"].lower()).strip("-")
    base = Path(args.output) / f"{name}-{document['date']}"
    write_text(base.with_suffix(".json"), json.dumps(document, indent=1, allow_nan=False) + "\n")
    shown = render(document)
    write_text(base.with_suffix(".txt"), shown + "\n")
    emit(args.json, document, f"{shown}\n\nwrote {base.with_suffix('.json')} and {base.with_suffix('.txt')}")
    return int(any(step["status"] == "failed" for step in document["steps"]))


def check(gpu: tuple[str, str], model: str, folder: Path, root: Path, runner: Runner) -> dict[str, Any]:
    """All steps, one after another.

    Args:
        gpu: its name and target.
        model: the bundle to build engines of.
        folder: scratch.
        root: the checkout, or what was installed of it.
        runner: runs programs.
    Returns:
        Plain data: gpu, target, date, and a report a step.
    """
    from qanet.benchmarks.gpu_check import measure, steps

    name, target = gpu
    reports: list[dict[str, Any]] = []

    def do(step: str, work: Callable[[], Any]) -> None:
        note(f"{step} ...")
        reports.append(run_step(Step(step, work)))
        note(f"{step}: {reports[-1]['status']} {reports[-1]['message'].splitlines()[-1:] or ''}")

    do("machine", partial(steps.describe_machine, runner))
    do("packages", partial(steps.install, runner, root))
    do("tests", partial(steps.gpu_tests, runner, root))
    for tool in ("memcheck", "racecheck"):
        do(tool, partial(steps.sanitize, tool, runner, root))
    do("kernels", partial(in_own_process, "kernels", runner, _LIMIT_S))
    for runtime in measure.RUNTIMES:
        do(f"build {runtime}", partial(measure.build, model, runtime, target, folder, runner))
        built = reports[-1]["result"] or {}
        for precision in [p for p in PRECISIONS if built.get(p) == "built"]:
            options = ("--bundle", str(measure.bundle_of(folder, runtime)), "--precision", precision, "--model", model)
            do(f"parser {runtime} {precision}", partial(in_own_process, "parser", runner, _LIMIT_S, *options))
    return {"gpu": name, "target": target, "date": datetime.date.today().isoformat(), "steps": reports}


def _own_step(name: str, bundle: str, precision: str, model: str) -> Any:
    if name == "kernels":
        from qanet.benchmarks.gpu_check.measure import measure

        return measure()
    from qanet.benchmarks.gpu_check.measure import run_parser

    return run_parser(bundle, precision, model)


def render(document: dict[str, Any]) -> str:
    """Steps, kernels and parsers."""
    results = {step["name"]: step["result"] for step in document["steps"] if step["status"] == "ok"}
    parts = [_head(document, results.get("machine")), _steps(document["steps"])]
    if "kernels" in results:
        parts.append(_kernels(results["kernels"]))
    parsers = [result for name, result in results.items() if name.startswith("parser ")]
    if parsers:
        parts.append(_parsers(parsers))
    return "\n\n".join(parts)


def _head(document: dict[str, Any], machine: dict[str, Any] | None) -> str:
    facts = [document["gpu"], document["target"], document["date"]]
    if machine:
        driver = machine["gpus"][0]["driver_version"] if machine["gpus"] else "unknown"
        facts += [
            f"driver {driver} (CUDA {machine['driver_cuda']})",
            f"toolkit {machine['toolkit_cuda'] or 'none'}",
            *(f"{name} {version}" for name, version in machine["versions"].items()),
            f"commit {machine['git']}",
        ]
    return ", ".join(facts)


def _steps(steps: list[dict[str, Any]]) -> str:
    rows = []
    for step in steps:
        words = " ".join(str(step["message"] or _short(step["result"])).split())
        rows.append((step["name"], step["status"], step["seconds"], words[:200]))
    return table(rows, ("step", "status", "s", ""))


def _short(result: Any) -> str:
    """A result that fits a line: text, or a dict of plain values."""
    if isinstance(result, dict) and all(isinstance(value, (str, int)) for value in result.values()):
        return ", ".join(f"{key} {value}" for key, value in result.items())
    return result if isinstance(result, str) else ""


def _kernels(result: dict[str, Any]) -> str:
    rows: list[tuple[object, ...]] = []
    for row in result["rows"]:
        if row["status"] != "ok":
            rows.append((row["case"], row["kernel"], *("-",) * 6, f"{row['status']}: {row['reason']}"))
            continue
        speed_up = row.get("speed_up")
        rows.append(
            (
                row["case"],
                row["kernel"],
                row["cold_ms"]["p50"],
                row["warm_ms"]["p50"],
                row["floor_ms"],
                row["cold_times_floor"],
                row["warm_times_floor"],
                speed_up if speed_up else "-",
                row.get("torch") or "",
            )
        )
    header = (
        "case",
        "kernel",
        "cold p50 ms",
        "warm p50 ms",
        "floor ms",
        "cold / floor",
        "warm / floor",
        "over torch",
        "",
    )
    return f"a large copy moves {result['copy_bytes_per_second'] / 1e9:.0f} GB/s\n{table(rows, header)}"


def _parsers(results: list[dict[str, Any]]) -> str:
    rows = [
        (
            result["runtime"],
            result["precision"],
            row["people"],
            *(row["latency_ms"][key] for key in ("p50", "p90", "p99")),
            row["latency_ms"]["n"],
            "; ".join(f"{name} {value:.3g}" for name, value in row["stages_ms"].items()),
            f"{row['labels_agree']:.2%}",
            " ".join(map(str, result["graph_batches"])) or "none",
        )
        for result in results
        for row in result["rows"]
    ]
    header = (
        "runtime",
        "precision",
        "people",
        "p50 ms",
        "p90 ms",
        "p99 ms",
        "n",
        "stage medians ms",
        "labels as FP32 on the CPU",
        "graphs",
    )
    return f"whole parser, frame of 1080p in host memory to people, boxes given\n{table(rows, header)}"


if __name__ == "__main__":
    run_module(main)
