"""Steps of the check: each ends with a result, a reason for being refused, or the message of its failure.

Besides running steps: finding the GPU, installing packages, the project's GPU tests, the sanitizer.
"""

import ctypes
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qanet.benchmarks import machine
from qanet.errors import QanetError

# Package, module, whether the rest can do without. PyCUDA has no wheel: its source is compiled against the toolkit.
PACKAGES = (
    ("pycuda", "pycuda", True),
    ("cuda-python", "cuda.bindings", True),
    ("tensorrt", "tensorrt", False),
    ("tensorrt_rtx", "tensorrt_rtx", False),
)
_TOOLKIT = "/usr/local/cuda/bin"
_NVRTC = ("nvidia-cuda-nvrtc", "nvrtc", True)
_SANITIZED = ("tests/cuda/test_kernels_on_gpu.py", "-k", "odd_shapes or crops or p05 or p09")


_TAIL_LINES = 15  # of a command's output, kept in the document
_MARK = "RESULT "  # before a step's JSON, which libraries' own output may precede

Report = dict[str, Any]
Runner = Callable[[Sequence[str], float], "Answer"]


@dataclass(frozen=True)
class Answer:
    """Exit code and output of a command; code None: it did not start, or reached its time limit."""

    code: int | None
    output: str


class Refused(Exception):
    """This machine lacks something: no failure, but nothing was measured either."""


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
        output = error.stdout or b""
        text = output.decode(errors="replace") if isinstance(output, bytes) else output
        return Answer(None, f"{text}\nno end after {limit_s:g} s")
    except OSError as error:
        return Answer(None, str(error))
    return Answer(done.returncode, done.stdout)


def last_lines(text: str, count: int = _TAIL_LINES) -> str:
    """The end of an output, where programs report their outcome."""
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


_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR


def find_gpu() -> tuple[str, str] | None:
    """Name and target, such as ("NVIDIA L4", "sm_89"); None without a driver or a GPU."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    device, major, minor, name = ctypes.c_int(0), ctypes.c_int(0), ctypes.c_int(0), ctypes.create_string_buffer(256)
    calls = (
        lambda: driver.cuInit(0),
        lambda: driver.cuDeviceGet(ctypes.byref(device), 0),
        lambda: driver.cuDeviceGetName(name, len(name), device),
        lambda: driver.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device),
        lambda: driver.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device),
    )
    if any(call() != 0 for call in calls):
        return None
    return name.value.decode(errors="replace"), f"sm_{major.value}{minor.value}"


_INSTALL_LIMIT_S, _TEST_LIMIT_S, _SANITIZER_LIMIT_S = 1800.0, 1800.0, 1800.0


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
        Package -> "there", "installed", or the end of the output of its installation.
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
    """The last line of compute-sanitizer on the kernels' tests.

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
