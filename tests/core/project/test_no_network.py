"""No command opens a connection that it was not asked for, and none writes into the home but its own cache."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from qanet.__main__ import COMMANDS

ROOT = Path(__file__).resolve().parents[3]
# Python reads this file when it starts: so it watches every process that a command starts, too.
_GUARD = """
import os, sys, socket  # (the module itself, before it is watched)
def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "socket.sendmsg"):
        address = arguments[1] if event.startswith(("socket.connect", "socket.send")) else arguments[0]
        with open(os.environ["QANET_TEST_LOG"], "a") as file:
            file.write(f"{event} {address}\\n")
sys.addaudithook(watch)
"""
_IMPORT_ALL = """
import importlib
from qanet.__main__ import COMMANDS
for command in COMMANDS.values():
    importlib.import_module(command.module)
for name in ("torch", "onnx", "onnxscript", "onnxruntime", "av", "cv2", "safetensors"):
    try:
        importlib.import_module(name)
    except ImportError:
        pass
from qanet.runtime.backends.openvino import openvino_core
openvino_core()
"""


@pytest.fixture
def watched(tmp_path):
    """Runs Python with an empty home; returns the connections that were tried and the files left in the home."""
    (tmp_path / "guard").mkdir()
    (tmp_path / "guard" / "sitecustomize.py").write_text(_GUARD)
    (tmp_path / "home").mkdir()
    (log := tmp_path / "connections").touch()

    def run(*arguments, code=0):
        paths = [str(tmp_path / "guard"), *filter(None, [os.environ.get("PYTHONPATH")])]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("XDG_") and name != "CI"}
        own = {"HOME": str(tmp_path / "home"), "QANET_TEST_LOG": str(log), "PYTHONPATH": os.pathsep.join(paths)}
        done = subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, env=kept | own, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == code, done.stderr
        found = sorted(str(path.relative_to(tmp_path / "home")) for path in (tmp_path / "home").rglob("*"))
        return log.read_text().splitlines(), [name for name in found if not name.startswith(".cache")]

    return run


def test_the_guard_sees_what_openvino_does_by_itself(watched):
    pytest.importorskip("openvino_telemetry")
    connections, files = watched("-c", "import openvino")
    assert connections and files, "OpenVINO reports nothing any more: `import_openvino` can go"


@pytest.mark.slow
def test_no_module_connects_when_it_is_imported(watched):
    assert watched("-c", _IMPORT_ALL) == ([], [])


@pytest.mark.parametrize(
    "arguments",
    [
        ("doctor",),
        ("doctor", "--prove", "BUNDLE"),
        ("inspect", "BUNDLE"),
        ("parse", "PICTURE", "out.png", "--model", "BUNDLE", "--boxes", "BOXES", "--results", "results.json"),
        ("parse", "PICTURE", "--model", "BUNDLE"),  # with the shipped detector
        ("build", "BUNDLE", "--precision", "fp32", "--runtime", "openvino", "--output", "built.qanet"),
        pytest.param(
            ("benchmark", "BUNDLE", "--input", "PICTURE", "--boxes", "BOXES", "--output", "report"),
            marks=pytest.mark.slow,
        ),
    ],
    ids=" ".join,
)
def test_a_command_connects_to_nothing(watched, tmp_path, tiny_bundle, people, arguments):
    assert arguments[0] in COMMANDS
    cv2.imwrite(str(tmp_path / "people.png"), people(0))
    (tmp_path / "boxes.json").write_text(json.dumps(people.boxes(0)))
    paths = {"BUNDLE": tiny_bundle, "PICTURE": tmp_path / "people.png", "BOXES": tmp_path / "boxes.json"}
    assert watched("-m", "qanet", *(str(paths.get(word, word)) for word in arguments)) == ([], [])


def imports_of_openvino(path):
    """Lines that import it as a program runs, not for the types alone."""
    tree = ast.parse(path.read_text())
    for_types = [
        node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    unused = {id(inner) for node in for_types for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)) and id(node) not in unused:
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [name.name for name in node.names]
            if any(name.split(".")[0] == "openvino" for name in names):
                yield f"{path.relative_to(ROOT)}: {ast.unparse(node)}"


def test_openvino_is_imported_at_one_door():
    """Whoever imports it elsewhere may be the first, and then it reports."""
    rooms = ("qanet", "runtime", "calib", "export", "train", "benchmarks", "demo")
    paths = [path for room in rooms for path in sorted((ROOT / room).rglob("*.py"))]
    assert [line for path in paths for line in imports_of_openvino(path)] == [
        "runtime/backends/openvino.py: import openvino"
    ]
