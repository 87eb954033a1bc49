"""Steps that do not bring each other down: each answers, is refused with a reason, or fails with its message."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from qanet.errors import QanetError

_TAIL_LINES = 15  # of a command's output, kept in the document
_MARK = "RESULT "  # before a step's JSON, which libraries' own output may precede

Report = dict[str, Any]
Runner = Callable[[Sequence[str], float], "Answer"]


@dataclass(frozen=True)
class Answer:
    """What came of a command; code None: it did not start, or ran into its time limit."""

    code: int | None
    output: str


class Refused(Exception):
    """What this machine does not have: no failure, but nothing was measured either."""


@dataclass(frozen=True)
class Step:
    """A step: `work` returns plain data, raises Refused with a reason, or anything else."""

    name: str
    work: Callable[[], Any]


def run_command(command: Sequence[str], limit_s: float) -> Answer:
    """Run a program to its end, stdout and stderr as one text."""
    try:
        done = subprocess.run(
            list(command),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        said = error.stdout or b""
        text = said.decode(errors="replace") if isinstance(said, bytes) else said
        return Answer(None, f"{text}\nno end after {limit_s:g} s")
    except OSError as error:
        return Answer(None, str(error))
    return Answer(done.returncode, done.stdout)


def last_lines(text: str, count: int = _TAIL_LINES) -> str:
    """The end of an output, where a program says what came of it."""
    return "\n".join(text.strip().splitlines()[-count:])


def expect_success(answer: Answer, what: str) -> str:
    """The output; RuntimeError with its end for any exit code but 0."""
    if answer.code != 0:
        raise RuntimeError(f"{what} ended with {answer.code}: {last_lines(answer.output)}")
    return answer.output


def run_step(step: Step) -> Report:
    """Plain data: name, status ("ok", "refused", "failed"), seconds, message, result."""
    begin = time.monotonic()
    report: Report = {"name": step.name, "status": "ok", "message": "", "result": None}
    try:
        report["result"] = step.work()
    except Refused as reason:
        report |= {"status": "refused", "message": str(reason)}
    except QanetError as error:
        report |= {"status": "failed", "message": error.line()}
    except Exception as error:  # whatever a library raises: the other steps go on
        report |= {"status": "failed", "message": f"{type(error).__name__}: {error}"}
    report["seconds"] = round(time.monotonic() - begin, 1)
    return report


def in_own_process(name: str, runner: Runner, limit_s: float, *arguments: str) -> Any:
    """The result of a step that a new process runs: a GPU that it leaves in a bad state is its own."""
    command = [sys.executable, "-m", "qanet.benchmarks.gpu_check", "--step", name, *arguments]
    output = expect_success(runner(command, limit_s), name)
    return parse_answer(output, name)


def answer_line(result: Any) -> str:
    """What a step's process prints for its parent."""
    return _MARK + json.dumps(result, allow_nan=False)


def parse_answer(output: str, name: str) -> Any:
    """The result that a step's process printed."""
    lines = [line for line in output.splitlines() if line.startswith(_MARK)]
    if not lines:
        raise RuntimeError(f"{name} printed no result: {last_lines(output)}")
    return json.loads(lines[-1].removeprefix(_MARK))
