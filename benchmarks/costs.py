"""Costs of a variant besides its latency: a cold start, the time to the first result, peak memory."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qanet.benchmarks.harness import Measurement, latency_of
from qanet.benchmarks.schema import ColdStart
from qanet.scratch import scratch_folder

STAGES = ("process", "import", "open", "first frame")
# One person who fills a grey picture: it needs no input file. What a stage covers is in its name.
_CHILD = """
import json, sys, time
start = time.perf_counter()
import numpy as np
from qanet.runtime.parser import load
imported = time.perf_counter()
parser = load(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4], threads=int(sys.argv[5]) or None)
opened = time.perf_counter()
height, width = parser.bundle.input_hw
image = np.full((height, width, 3), 127, np.uint8)
parser(image, boxes=[[0, 0, width, height]])
done = time.perf_counter()
print(json.dumps([imported - start, opened - imported, done - opened]))
"""
# The command itself, stopped where its first line of results would be written. Monotonic clocks of one machine agree.
_PARSE_CHILD = """
import os, sys, time
from qanet.__main__ import main
from qanet.runtime.video.sinks import JsonLines

def write(sink, frame, result):
    result.to_json()
    print("first result", time.monotonic(), flush=True)
    os._exit(0)

JsonLines.write = write
sys.exit(main(sys.argv[1:]))
"""
_STATUS = Path("/proc/self/status")
_PEAK_RESET = Path("/proc/self/clear_refs")
Spawn = Callable[[list[str]], str]  # arguments of Python to its stdout


def cold_start(
    bundle: Path,
    device: str,
    precision: str,
    tail: str = "kernel",
    threads: int | None = None,
    repeats: int = 3,
    spawn: Spawn | None = None,
) -> ColdStart:
    """Start fresh processes one after the other.

    Args:
        spawn: runs `python -c CODE ARGUMENTS` and gives its stdout; for tests.
    Returns:
        The stages "process" (starting Python and ending it), "import", "open" (loading or compiling the engine) and
        "first frame"; no figure, and the error, where a process failed.
    """
    arguments = ["-c", _CHILD, str(bundle.resolve()), device, precision, tail, str(threads or 0)]
    rows: list[list[float]] = []
    try:
        for _ in range(repeats):
            begin = time.perf_counter()
            output = (spawn or spawn_python)(arguments)
            total_s = time.perf_counter() - begin
            stages_s = [float(value) for value in json.loads(output.splitlines()[-1])]
            rows.append([(total_s - sum(stages_s)) * 1e3, *(value * 1e3 for value in stages_s)])
    except (OSError, ValueError, IndexError, subprocess.SubprocessError) as error:
        return ColdStart(len(rows), error=reason_of(error))
    stages = {stage: latency_of([row[i] for row in rows]) for i, stage in enumerate(STAGES)}
    return ColdStart(len(rows), stages, latency_of([sum(row) for row in rows]))


def spawn_python(arguments: list[str], timeout_s: float = 300) -> str:
    """Standard output of this Python with the arguments.

    Raises:
        OSError, subprocess.SubprocessError: it cannot be started, fails, or takes too long; see `reason_of`.
    """
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=timeout_s, check=True)
    return done.stdout


def reason_of(error: Exception) -> str:
    """The last line a failed process wrote to stderr, or what else went wrong."""
    if isinstance(error, subprocess.CalledProcessError):
        lines = [line for line in str(error.stderr).splitlines() if line.strip()]
        return lines[-1] if lines else f"exit code {error.returncode}"
    return f"{type(error).__name__}: {error}"


def first_result(arguments: Sequence[str], repeats: int, spawn: Spawn | None = None) -> dict[str, Any]:
    """Start `qanet parse ARGUMENTS --results ...` a few times, one after the other.

    Args:
        arguments: of `qanet parse`, without its outputs.
        spawn: runs Python with arguments and gives its stdout; for tests.
    Returns:
        Plain data: median_s, all_s, error (None, or why there is no figure).
    """
    found: list[float] = []
    try:
        for _ in range(repeats):
            with scratch_folder() as folder:
                results = str(folder / "results.jsonl")
                command = ["-c", _PARSE_CHILD, "parse", *arguments, "--results", results, "--quiet"]
                begin_s = time.monotonic()
                output = (spawn or spawn_python)(command)
            found.append(float(output.split("first result", 1)[1].split()[0]) - begin_s)
    except (OSError, ValueError, IndexError, subprocess.SubprocessError) as error:
        return {"median_s": None, "all_s": found, "error": reason_of(error)}
    return {"median_s": float(np.median(found)) if found else None, "all_s": found, "error": None}


class PeakMemory:
    """Resident memory of this process and its peak, from Linux's /proc; psutil has no peak that can be reset.

    Args:
        status, reset: files of /proc/self.
    """

    def __init__(self, status: Path = _STATUS, reset: Path = _PEAK_RESET):
        self._status, self._reset = status, reset

    def peak_mib(self) -> float | None:
        """The most resident memory since the start, or since the last reset; None on other systems than Linux."""
        return _mib(self._kib("VmHWM"))

    def extra_mib(self, call: Callable[[], object]) -> float | None:
        """Growth of the resident memory at its peak over one call; None where the peak cannot be reset or read."""
        try:
            self._reset.write_text("5")  # the kernel forgets the peak so far
        except OSError:
            return None
        before = self._kib("VmRSS")
        call()
        after = self._kib("VmHWM")
        return None if before is None or after is None else _mib(max(after - before, 0))

    def _kib(self, key: str) -> int | None:
        try:
            lines = dict(line.split(":", 1) for line in self._status.read_text().splitlines() if ":" in line)
            return int(lines[key].split()[0])
        except (OSError, KeyError, ValueError):
            return None


def measure_extra(measurements: list[Measurement], reader: PeakMemory | None = None) -> dict[str, float | None]:
    """Target's name -> MiB one more call of it takes at its peak; after the timing, since reading disturbs it.

    A target that fails here keeps its timing and gets None.
    """
    reader = reader or PeakMemory()
    found: dict[str, float | None] = {}
    for measurement in measurements:
        if measurement.error is not None or not measurement.samples_ms:
            continue
        call = measurement.target.call
        try:
            found[measurement.target.name] = reader.extra_mib(lambda call=call: call(0))  # type: ignore[misc]
        except Exception:  # the timing stands
            found[measurement.target.name] = None
    return found


def _mib(kib: int | None) -> float | None:
    return None if kib is None else round(kib / 1024, 3)
