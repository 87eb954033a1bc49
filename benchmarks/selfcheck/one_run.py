"""One run of an engine in a process of its own, as a results.json that can be compared: `run_once` starts it.

The arguments: NAME.qanet PRECISION SECONDS SLOWDOWN DEVICE THREADS (0: the runtime's choice).
"""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from qanet.benchmarks import harness, machine
from qanet.benchmarks.document import describe_target, describe_timing
from qanet.benchmarks.harness import anchor_target
from qanet.benchmarks.results import SCHEMA_VERSION
from qanet.benchmarks.targets import engine_target
from qanet.benchmarks.variants import list_variants
from qanet.bundle import Bundle, open_bundle
from qanet.commandline import run_module
from qanet.errors import QanetError
from qanet.runtime.engines.base import Engine
from qanet.runtime.engines.select import open_engine

_TIMEOUT_S = 600
_CELL = 16  # pixels of the same colour in the made-up crop


def open_target(bundle: Bundle, precision: str, device: str, threads: int | None) -> tuple[Engine, harness.Target]:
    """An engine with the kernel tail's outputs, and a target that runs one made-up crop through it."""
    (variant,) = list_variants([bundle], [precision], ["kernel"], [device])
    engine = open_engine(bundle, device, precision, variant.outputs, threads)
    height, width = bundle.input_hw
    cells = np.random.default_rng(0).integers(0, 256, (1, -(-height // _CELL), -(-width // _CELL), 3)).astype(np.uint8)
    crop = np.ascontiguousarray(cells.repeat(_CELL, 1).repeat(_CELL, 2)[:, :height, :width])
    return engine, engine_target(variant, engine, [(crop, np.ones(1, np.float32))], 1)


def slowed(target: harness.Target, share: float, clock: harness.Clock = time.perf_counter_ns) -> harness.Target:
    """The same target, each call longer by a share of its own duration, in which a processor is busy."""

    def call(number: int) -> object:
        begin = clock()
        given = target.call(number)
        now = clock()
        end = now + share * (now - begin)
        while clock() < end:
            pass
        return given

    return replace(target, call=call)


def measure(
    bundle: Bundle, precision: str, seconds: float, slowdown: float, device: str, threads: int | None
) -> dict[str, Any]:
    """As much of a results.json as a comparison reads: the machine, the anchor, the engine."""
    facts = machine.describe()
    _, target = open_target(bundle, precision, device, threads)
    chosen = slowed(target, slowdown) if slowdown else target
    session = harness.run([harness.null_target(), anchor_target(), chosen], seconds)
    if session.interrupted:
        raise KeyboardInterrupt
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "qanet benchmark",
        "machine": facts,
        "timing": describe_timing(session).to_json(),
        "targets": [describe_target(m).to_json() for m in session.measurements],
        "comparison": [],
    }


def run_once(
    bundle: Path, precision: str, seconds: float, slowdown: float = 0.0, device: str = "cpu", threads: int | None = None
) -> dict[str, Any]:
    """`measure` in a fresh process, as two results of two days come from two processes.

    Raises:
        QanetError: the process failed; its last line is in the message.
    """
    options = (precision, seconds, slowdown, device, threads or 0)
    document: dict[str, Any] = json.loads(_spawn([sys.executable, "-m", __name__, str(bundle), *map(str, options)]))
    return document


def _spawn(line: list[str]) -> str:
    try:
        return subprocess.run(line, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True).stdout
    except subprocess.CalledProcessError as error:
        lines = [text for text in str(error.stderr).splitlines() if text.strip()]
        raise QanetError("a run failed", got=lines[-1] if lines else f"exit code {error.returncode}") from error


def main(argv: Sequence[str]) -> int:
    """Entry point; the arguments are `run_once`'s."""
    name, precision, seconds, slowdown, device, threads = argv
    document = measure(open_bundle(name), precision, float(seconds), float(slowdown), device, int(threads) or None)
    print(json.dumps(document, allow_nan=False))
    return 0


if __name__ == "__main__":
    run_module(main)
