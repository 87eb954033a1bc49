"""A cold start: a fresh process from nothing to its first people, by stages."""

import json
import subprocess
import time
from pathlib import Path
from typing import Any

from qanet.benchmarks.harness.child import Spawn, reason_of, spawn_python
from qanet.benchmarks.statistics import summarize

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


def cold_start(
    bundle: Path,
    device: str,
    precision: str,
    tail: str = "kernel",
    threads: int | None = None,
    repeats: int = 3,
    spawn: Spawn | None = None,
) -> dict[str, Any]:
    """Start fresh processes one after the other.

    Args:
        spawn: runs `python -c CODE ARGUMENTS` and gives its stdout; for tests.
    Returns:
        Plain data: repeats; per stage ("process": starting Python and ending it, "import", "open": loading or
        compiling the engine, "first frame") and "total" the figures in milliseconds; or error, with the reason.
    """
    arguments = ["-c", _CHILD, str(bundle.resolve()), device, precision, tail, str(threads or 0)]
    rows: list[list[float]] = []
    try:
        for _ in range(repeats):
            begin = time.perf_counter()
            said = (spawn or spawn_python)(arguments)
            total_s = time.perf_counter() - begin
            stages_s = [float(value) for value in json.loads(said.splitlines()[-1])]
            rows.append([(total_s - sum(stages_s)) * 1e3, *(value * 1e3 for value in stages_s)])
    except (OSError, ValueError, IndexError, subprocess.SubprocessError) as error:
        return {"repeats": len(rows), "error": reason_of(error)}
    named = {stage: summarize([row[i] for row in rows]) for i, stage in enumerate(STAGES)}
    return {"repeats": len(rows), "stages_ms": named, "total_ms": summarize([sum(row) for row in rows]), "error": None}
