"""The texts that a user reads first: every --help, as stored in tests/golden/help, and the commands in errors."""

import ast
import contextlib
import io
import os
import re
import sys
from pathlib import Path

import pytest

from qanet.__main__ import COMMANDS, main

ROOT = Path(__file__).resolve().parents[3]
HELP = ROOT / "tests" / "golden" / "help"
ROOMS = ("qanet", "train", "export", "runtime", "calib", "benchmarks")


def help_of(command, monkeypatch):
    """What `qanet COMMAND --help` prints, 100 columns wide."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys, "argv", ["qanet"])
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        main([command, "--help"])
    return text.getvalue()


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="argparse lays help out differently in each Python")
@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_as_it_was_read_and_approved(command, monkeypatch):
    """A text that was changed on purpose: write it with `QANET_WRITE_HELP=1 pytest tests/core/project/test_help.py`."""
    text, file = help_of(command, monkeypatch), HELP / f"{command}.txt"
    if os.environ.get("QANET_WRITE_HELP"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    assert text == file.read_text()


def written_next_commands():
    """(place, text) of every next_command in the source; parts that are filled in at run time are the word VALUE."""
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.keyword) and node.arg == "next_command":
                    place = f"{path.relative_to(ROOT)}:{node.value.lineno}"
                    yield from ((place, text) for text in texts_of(node.value))


def texts_of(node):
    """The strings that an expression may give, as far as they are written there."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(v.value if isinstance(v, ast.Constant) else "VALUE" for v in node.values)
    elif isinstance(node, ast.IfExp):
        yield from texts_of(node.body)
        yield from texts_of(node.orelse)


NEXT = list(written_next_commands())


def test_a_next_command_names_commands_and_options_that_exist(monkeypatch):
    known = {command: set(re.findall(r"--[\w-]+", help_of(command, monkeypatch))) for command in COMMANDS}
    extras = set(
        re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text().split("optional-dependencies")[1], re.M)
    )
    checked = 0
    for place, text in NEXT:
        for command, rest in re.findall(r"\bqanet (\w+)([^;|,]*)", text):
            if command == "VALUE":
                continue
            assert command in COMMANDS, f"{place}: no command {command!r} in {text!r}"
            unknown = set(re.findall(r"(?<!\w)--[\w-]+", rest)) - known[command] - {"--VALUE"}
            assert not unknown, f"{place}: qanet {command} has no {unknown} in {text!r}"
            checked += 1
        for module in re.findall(r"python -m (qanet[\w.]*)", text):
            parts = module.split(".")
            home = ROOT.joinpath(*(parts[1:] if len(parts) > 1 and parts[1] in ROOMS else parts))
            assert home.with_suffix(".py").is_file() or (home / "__main__.py").is_file(), f"{place}: no module {module}"
            checked += 1
        for extra in re.findall(r"qanet-edge\[(\w+)\]", text):
            assert extra in extras or extra == "VALUE", f"{place}: no extra {extra}"
            checked += 1
    assert checked >= 30 and len(NEXT) >= 60
