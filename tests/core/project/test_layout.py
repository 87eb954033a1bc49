"""The law of the house: who may import whom, and what never lies in the repository."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
ROOMS = ("train", "export", "runtime", "calib", "benchmarks")
# Floors: a room imports every room on a floor below its own, lazy imports counted. `qanet/cli/`, the command table and
# the package's own door are the roof; the lab is not installed, and nothing imports it.
FLOORS = {"core": 0, "runtime": 1, "train": 1, "calib": 2, "export": 3, "benchmarks": 4, "roof": 5, "lab": 5}
APART = {("calib", "train")}  # the second is on a lower floor, and still none of the first's business
TORCH_ROOMS = {"train", "export", "lab"}
MAX_LINES = 400


def sources():
    """Module name -> file, of everything that installs."""
    files = {}
    for top in ("qanet", *ROOMS):
        for path in (REPOSITORY / top).rglob("*.py"):
            parts = path.relative_to(REPOSITORY).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            files[".".join(parts if top == "qanet" else ("qanet", *parts))] = path
    return files


MODULES = sources()


def room_of(module: str) -> str:
    """The room's name; "roof" for what stands above all, "core" for everything else under qanet."""
    parts = module.split(".")
    if parts[1:3] == ["benchmarks", "lab"]:
        return "lab"
    if module in ("qanet", "qanet.__main__", "qanet.model") or module.startswith("qanet.cli"):
        return "roof"
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else "core"


def imports(path: Path, at_load_only: bool = False, for_types: bool = True):
    """(line, module) of every import in a file; `from package import module` names the module where there is one.

    Args:
        at_load_only: leave out imports inside functions, and those for types alone.
        for_types: count imports for types alone.
    """
    tree = ast.parse(path.read_text(), str(path))
    skipped = set()
    for node in ast.walk(tree):
        lazy = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        if (at_load_only and lazy) or ((at_load_only or not for_types) and typing_only):
            skipped |= {id(child) for child in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield node.lineno, inner if inner in MODULES else str(node.module)


def test_the_whole_package_is_looked_at():
    assert {room_of(module) for module in MODULES} == {"core", "roof", "lab", *ROOMS}
    assert {"qanet.quality", "qanet.runtime.parser", "qanet.metrics.evaluator"} <= MODULES.keys()


def test_a_room_imports_those_on_floors_below_it():
    broken = [
        f"{path.relative_to(REPOSITORY)}:{line} imports {target}"
        for module, path in MODULES.items()
        for line, target in imports(path)
        if target.startswith("qanet.")
        and room_of(target) != room_of(module)
        and (FLOORS[room_of(target)] >= FLOORS[room_of(module)] or (room_of(module), room_of(target)) in APART)
    ]
    assert broken == []


def test_no_import_is_written_as_a_string():
    """Such an import would be hidden from the tests of this file."""
    written = re.compile(r"qanet(\.\w+)+:\w+")
    broken = [
        f"{path.relative_to(REPOSITORY)}:{node.lineno}"
        for path in MODULES.values()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and written.fullmatch(node.value)
    ]
    assert broken == []


def test_the_door_to_the_runtime_opens_on_call_only():
    assert [m for _, m in imports(MODULES["qanet"], at_load_only=True) if m.startswith("qanet.")] == [
        "qanet._version",
        "qanet.errors",
    ]


def test_the_command_table_names_modules_with_a_main():
    from qanet.__main__ import COMMANDS

    for command in COMMANDS.values():
        tree = ast.parse(MODULES[command.module].read_text())
        assert "main" in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, command.module


def test_only_training_and_export_import_torch():
    broken = [
        f"{path.relative_to(REPOSITORY)}:{line}"
        for module, path in MODULES.items()
        for line, target in imports(path)
        if target.split(".")[0] in ("torch", "torchvision") and room_of(module) not in TORCH_ROOMS
    ]
    assert broken == []


def test_no_import_goes_round_in_a_circle():
    """Imports inside functions are counted."""
    edges = {}
    for module, path in MODULES.items():
        targets = {t for _, t in imports(path, for_types=False) if t in MODULES and t != module}
        edges[module] = targets
    finished, path_here = set(), []

    def visit(module):
        assert module not in path_here, " -> ".join([*path_here[path_here.index(module) :], module])
        if module in finished:
            return
        path_here.append(module)
        for target in sorted(edges[module]):
            visit(target)
        path_here.pop()
        finished.add(module)

    for module in edges:
        visit(module)
    assert finished == MODULES.keys()


@pytest.mark.parametrize("module", MODULES)
def test_a_file_is_short_and_says_what_it_is(module):
    text = MODULES[module].read_text()
    assert len(text.splitlines()) <= MAX_LINES
    assert ast.get_docstring(ast.parse(text)) or module == "qanet._version"


def tracked_files():
    """The files that git keeps; skips outside a checkout."""
    if not (REPOSITORY / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, check=True).stdout
    return [REPOSITORY / name for name in listed.decode().split("\0") if name]


def test_no_path_of_a_machine_is_in_the_repository():
    homes = re.compile(rb"(?<![\w.])/(?:home|Users|root|work|mnt)/[A-Za-z0-9_.-]+/?[A-Za-z0-9_.-]*")
    broken = []
    for path in tracked_files():
        if path.is_file() and path.stat().st_size < 2**20 and path.suffix not in (".npz", ".png", ".onnx"):
            broken += [f"{path.name}: {found.decode()}" for found in homes.findall(path.read_bytes())]
    assert broken == []


def test_tests_have_names_of_their_own_and_no_packages():
    names = [path.name for path in (REPOSITORY / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names))
    assert not list((REPOSITORY / "tests").rglob("__init__.py"))
