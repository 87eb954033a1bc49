"""What every subcommand shares: an argument parser with --json, types for its options, and how results are printed.

    parser = command_parser("parse", "Parse the people of a video.")
    parser.add_argument("--threads", type=positive_int)
    parser.add_argument("--precision", type=comma_list(PRECISIONS), default=("fp32",))

A value that a type refuses ends the command with exit code 2 and one line on stderr:
"error: bad --threads (expected 1 or more, got 0)".
"""

import argparse
import io
import json
import math
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from qanet.errors import QanetError, printable
from qanet.files import is_standard_output
from qanet.signals import stop_code, stoppable

_SHORTAGE = re.compile(  # how Python, C++ and the runtimes say that the system gave no more
    r"can't start new thread|bad_alloc|[Cc]an(no|')t allocate memory|[Oo]ut of memory|Resource temporarily unavailable"
)
_INTERRUPTED = 130  # what a command returns that was stopped and kept what it had


class BadValue(argparse.ArgumentTypeError):
    """A value that an option's type refuses; `CommandParser` adds the option's name."""

    def __init__(self, expected: object, got: object):
        super().__init__(f"expected {expected}, got {got}")
        self.expected, self.got = expected, got


class CommandParser(argparse.ArgumentParser):
    """argparse whose mistakes are QanetErrors, so that they look like every other error."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Options may stand between the positional arguments: `qanet parse IN --model NAME OUT`.

        After `--` a name may begin with a dash, `qanet parse -- -a.mp4`; it is given on as ./-a.mp4.
        """
        words = list(sys.argv[1:] if args is None else args)
        for word in words:
            if "\0" in word:
                raise QanetError(f"bad argument {word!r}", expected="text without a NUL character")
        if "--" in words:
            end = words.index("--")
            names = [f"./{word}" if word.startswith("-") and word != "-" else word for word in words[end + 1 :]]
            words = words[:end] + names
        return self.parse_intermixed_args(words, namespace)

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage and exiting."""
        refusal = sys.exc_info()[1]  # argparse calls this while it handles its own error
        value = None if refusal is None else refusal.__context__
        if isinstance(refusal, argparse.ArgumentError) and isinstance(value, BadValue):
            option = str(refusal.argument_name).rpartition("/")[2]  # the long one of -t/--threads
            raise QanetError(f"bad {option}", expected=value.expected, got=value.got) from refusal
        raise QanetError(message, next_command=f"{self.prog} --help")


def command_parser(name: str, description: str, **options: Any) -> CommandParser:
    """A parser for `qanet NAME` with --json."""
    parser = CommandParser(prog=f"qanet {name}", description=description, allow_abbrev=False, **options)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout instead of text")
    return parser


def at_least(least: int) -> Callable[[str], int]:
    """The type of an option that takes a whole number of `least` or more.

    >>> at_least(4)("12")
    12
    """

    def whole_number(text: str) -> int:
        number = _number(text, int)
        if number is None or number < least:
            raise BadValue(f"{least} or more", text)
        return int(number)

    return whole_number


positive_int = at_least(1)


def amount(text: str) -> float:
    """The type of an option that takes a number of 0 or more.

    >>> amount("0.5")
    0.5
    """
    number = _number(text, float)
    if number is None or number < 0:
        raise BadValue("0 or more", text)
    return number


def seconds(text: str) -> float:
    """The type of an option that takes a duration above 0.

    >>> seconds("2.5")
    2.5
    """
    number = _number(text, float)
    if number is None or number <= 0:
        raise BadValue("seconds above 0", text)
    return number


def fraction(text: str) -> float:
    """The type of an option that takes a share from 0 to 1.

    >>> fraction("0.05")
    0.05
    """
    number = _number(text, float)
    if number is None or not 0 <= number <= 1:
        raise BadValue("a number from 0 to 1", text)
    return number


def numbers(count: int | None = None) -> Callable[[str], tuple[float, ...]]:
    """The type of an option that takes numbers with commas between them; of just `count` where that is given.

    >>> numbers(3)("1,0.5,3")
    (1.0, 0.5, 3.0)
    """

    def number_list(text: str) -> tuple[float, ...]:
        found = [_number(word, float) for word in text.split(",")]
        if None in found or (count is not None and len(found) != count):
            raise BadValue(f"{'' if count is None else f'{count} '}numbers with commas between them", text)
        return tuple(number for number in found if number is not None)

    return number_list


def comma_list(choices: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    """The type of an option that takes one or more of `choices` with commas between them; each is kept once.

    >>> comma_list(("fp32", "fp16", "int8"))("int8, fp32,int8")
    ('int8', 'fp32')
    """

    def chosen(text: str) -> tuple[str, ...]:
        words = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
        wrong = [word for word in words if word not in choices]
        if wrong or not words:
            raise BadValue(f"one or more of {', '.join(choices)}", wrong[0] if wrong else repr(text))
        return words

    return chosen


def output_file(text: str) -> str:
    """The type of an option that takes the name of a file to write; - is standard output.

    >>> output_file("-")
    '/dev/stdout'
    """
    return "/dev/stdout" if text == "-" else text


def output_folder(text: str) -> str:
    """The type of an option that takes the name of a folder to write.

    >>> output_folder("./-")
    './-'
    """
    if text == "-":
        raise BadValue("a folder; ./- is one of that name", text)
    return text


def _number(text: str, kind: Callable[[str], float]) -> float | None:
    """A finite number; None for anything else."""
    try:
        number = kind(text)
        return number if math.isfinite(number) else None
    except (ValueError, OverflowError):
        return None


def run_command(command: Callable[[], int]) -> int:
    """Run a command; its exit code, after an error or a stop was told in one line on stderr.

    Returns:
        What the command returned; 2 for a user's mistake; 130 after Ctrl-C, 143 after SIGTERM and 129 after SIGHUP.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name may hold letters that a terminal's encoding does not
            stream.reconfigure(errors="backslashreplace")
    try:
        with stoppable():
            code = command()
            sys.stdout.flush()  # a reader that went away (qanet ... | head) is noticed here, not when Python exits
        return stop_code() if code == _INTERRUPTED else code
    except QanetError as error:
        note(f"error: {error.line()}")
    except KeyboardInterrupt:
        eval("0")  # `python -m` ends by SIGINT, caught or not, if the last text that Python evaluated was interrupted
        note("interrupted")
        return stop_code()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # a file or a folder that cannot be used; whoever knows more has told it above
        note(f"error: {' '.join(str(error).split())}")
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not _SHORTAGE.search(str(error)):
            raise
        what = "threads" if "thread" in str(error) else "memory"
        note(f"error: not enough {what}; next: smaller inputs, --threads 1, or a higher limit (ulimit -a)")
    return 2


def run_module(main: Callable[[Sequence[str]], int]) -> NoReturn:
    """Run the command of a module that was started by `python -m`: with the exit codes and errors of `qanet` itself."""
    sys.exit(run_command(lambda: main(sys.argv[1:])))


def emit(as_json: bool, document: Any, text: str, results: str | None = None) -> None:
    """Print the document or the text; nan and infinity, which JSON does not have, become null.

    Args:
        results: a path that was written; where it is standard output, this goes to stderr.
    """
    line = json.dumps(_plain(document), indent=2, allow_nan=False) if as_json else printable(text)
    print(line, file=sys.stderr if results and is_standard_output(Path(results)) else sys.stdout)


def note(text: str) -> None:
    """A line for a person, on stderr, so that stdout stays parseable."""
    print(printable(text), file=sys.stderr, flush=True)


def table(rows: Sequence[Sequence[object]], header: Sequence[str]) -> str:
    """Rows in aligned columns; numbers to the right."""
    cells = [[str(c) for c in header], *([_cell(c) for c in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = []
    for number, row in enumerate(cells):
        source = rows[number - 1] if number else header
        lines.append(
            "  ".join(
                c.rjust(w) if isinstance(v, (int, float)) else c.ljust(w) for c, w, v in zip(row, widths, source)
            ).rstrip()
        )
        if number == 0:
            lines.append("  ".join("-" * w for w in widths))
    return "\n".join(lines)


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _plain(value: Any) -> Any:
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (int, float, type(None))) else printable(str(value))
