"""What every subcommand shares: an argument parser with --json, and how results are printed."""

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from qanet.errors import QanetError


class CommandParser(argparse.ArgumentParser):
    """argparse whose mistakes are QanetErrors, so that they look like every other error."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Options may stand between the positional arguments: `qanet parse IN --model NAME OUT`."""
        return self.parse_intermixed_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage and exiting."""
        raise QanetError(message, next_command=f"{self.prog} --help")


def command_parser(name: str, description: str, **options: Any) -> CommandParser:
    """A parser for `qanet NAME` with --json."""
    parser = CommandParser(prog=f"qanet {name}", description=description, allow_abbrev=False, **options)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout instead of text")
    return parser


def run_module(main: Callable[[Sequence[str]], int]) -> NoReturn:
    """Run the command of a module that was started by `python -m`: exit codes and errors as `qanet` itself has them."""
    try:
        sys.exit(main(sys.argv[1:]))
    except QanetError as error:
        print(f"error: {error.line()}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def emit(as_json: bool, document: Any, text: str) -> None:
    """Print the document or the text; nan and infinity, which JSON has not, become null."""
    print(json.dumps(_plain(document), indent=2, allow_nan=False) if as_json else text)


def note(text: str) -> None:
    """A line for a person, on stderr, so that stdout stays parseable."""
    print(text, file=sys.stderr, flush=True)


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
    return value if isinstance(value, (str, int, float, type(None))) else str(value)
