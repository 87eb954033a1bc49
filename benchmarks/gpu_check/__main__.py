"""`python -m qanet.benchmarks.gpu_check`, or `make gpu-check`: everything that only a machine with a GPU can tell.

Each step is on its own: one that fails is recorded with its message, and the rest goes on. What comes of it, with the
machine's description, is written to benchmarks/results/GPU-DATE.json and .txt, ready to be sent.
"""

import datetime
import json
import re
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from qanet.benchmarks.gpu_check import text
from qanet.benchmarks.gpu_check.gpu import find_gpu
from qanet.benchmarks.gpu_check.steps import Runner, Step, answer_line, in_own_process, run_command, run_step
from qanet.bundle import PRECISIONS
from qanet.commandline import CommandParser, command_parser, emit, note, run_module
from qanet.errors import QanetError
from qanet.files import write_text

_LIMIT_S = 1800.0  # of a step in its own process


def _arguments() -> CommandParser:
    parser = command_parser("gpu-check", "Test and time everything that needs a GPU, on this machine's.")
    parser.prog = "python -m qanet.benchmarks.gpu_check"
    parser.add_argument("--output", default="benchmarks/results", metavar="DIR", help="where the results go")
    parser.add_argument("--model", default="ccp13-lite0", metavar="NAME.qanet", help="bundle to build engines of")
    parser.add_argument("--step", choices=("kernels", "parser"), help="run one step here and print its JSON")
    parser.add_argument("--bundle", default="", metavar="DIR", help="of the parser step: the bundle with its engine")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp16", help="of the parser step")
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
    with tempfile.TemporaryDirectory() as folder:
        document = check(gpu, args.model, Path(folder), root, runner)
    name = re.sub(r"[^a-z0-9]+", "-", document["gpu"].lower()).strip("-")
    base = Path(args.output) / f"{name}-{document['date']}"
    write_text(base.with_suffix(".json"), json.dumps(document, indent=1, allow_nan=False) + "\n")
    table = text.render(document)
    write_text(base.with_suffix(".txt"), table + "\n")
    emit(args.json, document, f"{table}\n\nwrote {base.with_suffix('.json')} and {base.with_suffix('.txt')}")
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
    from qanet.benchmarks.gpu_check import engines, tools

    name, target = gpu
    reports: list[dict[str, Any]] = []

    def do(step: str, work: Callable[[], Any]) -> None:
        note(f"{step} ...")
        reports.append(run_step(Step(step, work)))
        note(f"{step}: {reports[-1]['status']} {reports[-1]['message'].splitlines()[-1:] or ''}")

    do("machine", partial(tools.describe_machine, runner))
    do("packages", partial(tools.install, runner, root))
    do("tests", partial(tools.gpu_tests, runner, root))
    for tool in ("memcheck", "racecheck"):
        do(tool, partial(tools.sanitize, tool, runner, root))
    do("kernels", partial(in_own_process, "kernels", runner, _LIMIT_S))
    for runtime in engines.RUNTIMES:
        do(f"build {runtime}", partial(engines.build, model, runtime, target, folder, runner))
        built = reports[-1]["result"] or {}
        for precision in [p for p in PRECISIONS if built.get(p) == "built"]:
            options = ("--bundle", str(engines.bundle_of(folder, runtime)), "--precision", precision, "--model", model)
            do(f"parser {runtime} {precision}", partial(in_own_process, "parser", runner, _LIMIT_S, *options))
    return {"gpu": name, "target": target, "date": datetime.date.today().isoformat(), "steps": reports}


def _own_step(name: str, bundle: str, precision: str, model: str) -> Any:
    if name == "kernels":
        from qanet.benchmarks.gpu_check.kernels import measure

        return measure()
    from qanet.benchmarks.gpu_check.engines import run_parser

    return run_parser(bundle, precision, model)


if __name__ == "__main__":
    run_module(main)
