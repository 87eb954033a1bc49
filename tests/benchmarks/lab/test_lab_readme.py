"""Every tool of the lab is listed in its README, and its help names the command that runs it."""

import ast
import importlib
import re
from pathlib import Path

import pytest

LAB = Path(__file__).resolve().parents[3] / "benchmarks" / "lab"
INTERNAL = {"selfcheck_processes"}  # started by selfcheck alone
TOOLS = sorted(
    path.stem
    for path in LAB.glob("*.py")
    if any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in ast.parse(path.read_text()).body)
    and path.stem not in INTERNAL
)


def test_every_tool_has_a_row():
    assert sorted(re.findall(r"^\| `(\w+)` \|", (LAB / "README.md").read_text(), re.M)) == TOOLS


@pytest.mark.parametrize("tool", TOOLS)
def test_help_names_the_command(tool, capsys):
    if "import torch" in (LAB / f"{tool}.py").read_text():
        pytest.importorskip("torch")
    main = importlib.import_module(f"qanet.benchmarks.lab.{tool}").main
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert f"python -m qanet.benchmarks.lab.{tool} " in " ".join(capsys.readouterr().out.split())
