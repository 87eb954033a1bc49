"""Seconds from the start of a `qanet parse` to its first result, in fresh processes."""

import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qanet.benchmarks.harness.child import Spawn, reason_of, spawn_python

# The command itself, stopped where its first line of results would be written. Monotonic clocks of one machine agree.
_CHILD = """
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
            with tempfile.TemporaryDirectory() as folder:
                results = str(Path(folder) / "results.jsonl")
                command = ["-c", _CHILD, "parse", *arguments, "--results", results, "--quiet"]
                begin_s = time.monotonic()
                said = (spawn or spawn_python)(command)
            found.append(float(said.split("first result", 1)[1].split()[0]) - begin_s)
    except (OSError, ValueError, IndexError, subprocess.SubprocessError) as error:
        return {"median_s": None, "all_s": found, "error": reason_of(error)}
    return {"median_s": float(np.median(found)) if found else None, "all_s": found, "error": None}
