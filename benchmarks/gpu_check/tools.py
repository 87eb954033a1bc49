"""Steps made of other people's programs: packages, the tests of this project, the sanitizer."""

import importlib.util
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from qanet.benchmarks import machine
from qanet.benchmarks.gpu_check.steps import Refused, Runner, expect_success, last_lines

# Package, module, whether the rest can do without. PyCUDA has no wheel: its source is compiled against the toolkit.
PACKAGES = (
    ("pycuda", "pycuda", True),
    ("cuda-python", "cuda.bindings", True),
    ("tensorrt", "tensorrt", False),
    ("tensorrt_rtx", "tensorrt_rtx", False),
)
_TOOLKIT = "/usr/local/cuda/bin"
_NVRTC = ("nvidia-cuda-nvrtc", "nvrtc", True)
_INSTALL_LIMIT_S, _TEST_LIMIT_S, _SANITIZER_LIMIT_S = 1800.0, 1800.0, 1800.0
_SANITIZED = ("tests/cuda/test_kernels_on_gpu.py", "-k", "odd_shapes or crops or p05 or p09")


def describe_machine(runner: Runner) -> dict[str, Any]:
    """`machine.describe`, the driver's CUDA version, and the toolkit's."""
    smi = runner(["nvidia-smi"], 30).output
    nvcc = shutil.which("nvcc") or shutil.which("nvcc", path=_TOOLKIT)
    toolkit = re.search(r"release ([\d.]+)", runner([nvcc, "--version"], 30).output) if nvcc else None
    cuda = re.search(r"CUDA Version:\s*([\d.]+)", smi)
    return {
        **machine.describe(),
        "driver_cuda": cuda.group(1) if cuda else None,
        "toolkit_cuda": toolkit.group(1) if toolkit else None,
        "nvidia_smi": smi.strip(),
    }


def install(runner: Runner, root: Path) -> dict[str, str]:
    """What is needed into this interpreter's environment, a package at a time.

    Returns:
        Package -> "there", "installed", or what its installation said.
    Raises:
        RuntimeError: a package that the rest cannot do without does not install.
    """
    if shutil.which("nvcc") is None and shutil.which("nvcc", path=_TOOLKIT):
        os.environ["PATH"] = os.pathsep.join((os.environ["PATH"], _TOOLKIT))  # PyCUDA's set-up looks nowhere else
    constraints = ["-c", str(root / "constraints.txt")] if (root / "constraints.txt").is_file() else []
    nvcc = shutil.which("nvcc")
    found, missing = {}, []
    for package, module, is_needed in (*PACKAGES, *(() if nvcc else (_NVRTC,))):
        if _is_there(module):
            found[package] = "there"
            continue
        answer = runner([sys.executable, "-m", "pip", "install", "-q", *constraints, package], _INSTALL_LIMIT_S)
        found[package] = "installed" if answer.code == 0 else last_lines(answer.output, 3)
        if answer.code != 0 and is_needed:
            missing.append(f"{package}: {found[package]}")
    if missing:
        raise RuntimeError("; ".join(missing))
    return found


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # not even the package that it is in
        return False


def gpu_tests(runner: Runner, root: Path) -> dict[str, Any]:
    """The tests marked `gpu`; a run in which none passed is a failure too."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", str(root / "tests")]
    output = expect_success(runner(command, _TEST_LIMIT_S), "the tests")
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|skipped)", output)}
    if not counts.get("passed"):
        raise RuntimeError(f"no test passed: {last_lines(output)}")
    return counts


def sanitize(tool: str, runner: Runner, root: Path) -> str:
    """compute-sanitizer's last word on the kernels' tests.

    Raises:
        Refused: it is not installed.
    """
    program = shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path=_TOOLKIT)
    if program is None:
        raise Refused("compute-sanitizer is not installed: it comes with the CUDA toolkit")
    path, *chosen = _SANITIZED
    command = [
        program,
        "--tool",
        tool,
        "--error-exitcode",
        "3",
        "--target-processes",
        "all",
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        str(root / path),
        *chosen,
    ]
    output = expect_success(runner(command, _SANITIZER_LIMIT_S), tool)
    if not re.search(r"[1-9]\d* passed", output):
        raise RuntimeError(f"no test passed under {tool}: {last_lines(output)}")
    return last_lines("\n".join(line for line in output.splitlines() if line.startswith("=========")), 1)
