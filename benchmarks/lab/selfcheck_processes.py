"""What the self-check runs in processes of their own: the runtime's benchmark program, and single runs of an engine.

OpenVINO's program is benchmark_app of its wheel, TensorRT's is trtexec. Each takes turns with the harness, so that a
slow minute hits both.

    python -m qanet.benchmarks.lab.selfcheck_processes NAME.qanet PRECISION SECONDS SLOWDOWN DEVICE THREADS

is one run of an engine as a results.json that can be compared, started by `run_once` (THREADS 0: the runtime's choice).
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from qanet.benchmarks import harness, machine
from qanet.benchmarks.document import describe_target, describe_timing
from qanet.benchmarks.harness import anchor_target, summarize
from qanet.benchmarks.results import SCHEMA_VERSION
from qanet.benchmarks.targets import engine_target
from qanet.benchmarks.variants import list_variants
from qanet.benchmarks.verdict import interval_of, percentile_statistic
from qanet.bundle import Bundle, open_bundle
from qanet.commandline import run_module
from qanet.errors import QanetError
from qanet.runtime.backends.base import Engine
from qanet.runtime.backends.openvino import openvino_core
from qanet.runtime.backends.select import open_engine

AGREEMENT = 0.02  # greatest difference of the medians, a fraction
_TRTEXEC = Path("/usr/src/tensorrt/bin/trtexec")  # where NVIDIA's packages put it
_MEDIAN = percentile_statistic(50)
_APP = "import sys; sys.modules['openvino_telemetry'] = None; from openvino.tools.benchmark.main import main; main()"
_APP_MEDIAN = re.compile(r"Median:\s+([\d.]+)\s*(us|ms)\b")  # microseconds where a call takes less than one ms
_TRTEXEC_MEDIAN = re.compile(r"\bLatency: .*?median = ([\d.]+) (ms)\b")
_MS = {"us": 1e-3, "ms": 1.0}

Spawn = Callable[[list[str]], str]  # command line to what it printed
_TIMEOUT_S = 600
_CELL = 16  # pixels of the same colour in the made-up crop


def openvino_command(graph: Path, bundle: Bundle, engine: Engine, threads: int | None, seconds: float) -> list[str]:
    """benchmark_app on a graph, compiled as the engine was: one crop per call, one request after the other."""
    line = [
        sys.executable,
        "-c",
        _APP,
        "-m",
        str(graph),
        "-d",
        "CPU",
        "-api",
        "sync",
        "-t",
        str(max(round(seconds), 1)),
        "-data_shape",
        f"crops[{','.join(map(str, (1, *bundle.input_hw, 3)))}]",
        "-infer_precision",
        str(getattr(engine, "floating_point", "f32")),
    ]
    # It takes a count of threads only without a hint; one stream is what the latency hint means.
    return line + (["-hint", "none", "-nstreams", "1", "-nthreads", str(threads)] if threads else ["-hint", "latency"])


def write_openvino_graph(bundle: Bundle, engine: Engine, file: Path) -> None:
    """The graph of an engine, cut to its outputs, as OpenVINO's XML: benchmark_app 2026.4 refuses every compiled file.

    (It takes precision options that were not given for some that were.)
    """
    from qanet.runtime.backends.openvino import import_openvino, select_outputs
    from qanet.runtime.backends.select import graphs_of

    model = select_outputs(
        openvino_core().read_model(bundle.graph(graphs_of(bundle, engine.precision)[0])), engine.outputs
    )
    import_openvino().save_model(model, str(file), compress_to_fp16=False)


def trtexec_command(bundle: Bundle, engine: Engine, seconds: float) -> list[str]:
    """trtexec on the engine file; QanetError where the bundle has none, or the machine no trtexec."""
    key = (engine.runtime, engine.precision)
    entry = next((e for e in bundle.engines if (e["runtime"], e["precision"]) == key), None)
    program = shutil.which("trtexec") or (str(_TRTEXEC) if _TRTEXEC.is_file() else None)
    if entry is None or program is None or engine.runtime != "tensorrt":
        raise QanetError(
            "no benchmark program for this engine here",
            expected="OpenVINO's, or trtexec and an engine of TensorRT",
            got=" ".join(key),
            next_command="qanet doctor",
        )
    line = [
        program,
        f"--loadEngine={bundle.path / entry['file']}",
        f"--duration={max(round(seconds), 1)}",
        "--warmUp=500",
        f"--shapes=crops:{'x'.join(map(str, (1, *bundle.input_hw, 3)))}",
    ]
    return line + (["--useCudaGraph"] if getattr(engine, "graph_batches", ()) else [])


def read_median_ms(output: str, pattern: re.Pattern[str]) -> float:
    """The median latency in a program's output; QanetError with its last line where there is none."""
    found = pattern.search(output)
    if found is None:
        lines = [line.strip() for line in output.splitlines() if line.strip()]
        raise QanetError("the benchmark program printed no median", got=lines[-1][:200] if lines else "nothing")
    return float(found.group(1)) * _MS[found.group(2)]


def compare_with_program(
    bundle: Bundle,
    engine: Engine,
    target: harness.Target,
    pairs: int,
    seconds: float,
    threads: int | None = None,
    spawn: Spawn | None = None,
) -> dict[str, Any]:
    """Time in turns: the program, the harness, the program, ...

    Args:
        target: the harness's target on `engine`, one crop per call.
        pairs: of turns.
        seconds: of each turn.
    Returns:
        Plain data: program_ms and harness_ms (a median per turn), ratio: median over the pairs of harness over program
        with its 95% interval, agrees: whether that median is within AGREEMENT of 1.
    """
    is_openvino = engine.runtime == "openvino"
    program_ms, harness_ms = [], []
    with tempfile.TemporaryDirectory() as folder:
        if is_openvino:
            graph = Path(folder) / "graph.xml"
            write_openvino_graph(bundle, engine, graph)
            line, pattern = openvino_command(graph, bundle, engine, threads, seconds), _APP_MEDIAN
        else:
            line, pattern = trtexec_command(bundle, engine, seconds), _TRTEXEC_MEDIAN
        for _ in range(pairs):
            program_ms.append(read_median_ms((spawn or _output_of)(line), pattern))
            harness_ms.append(_harness_ms(target, seconds))
    ratio = interval_of([own / its for own, its in zip(harness_ms, program_ms)], _MEDIAN)
    return {
        "program": "benchmark_app" if is_openvino else "trtexec",
        "program_ms": program_ms,
        "harness_ms": harness_ms,
        "ratio": ratio.to_json(),
        "agrees": abs(ratio.value - 1) <= AGREEMENT,
    }


def _harness_ms(target: harness.Target, seconds: float) -> float:
    session = harness.run([target], seconds)
    if session.interrupted:
        raise KeyboardInterrupt
    (measured,) = session.measurements
    if measured.error or not measured.samples_ms:
        raise QanetError("the engine could not be timed", got=measured.error or "no sample")
    return float(summarize(measured.samples_ms)["p50"])


def _output_of(line: list[str]) -> str:
    """What a program printed; QanetError where it cannot be run. A failed one prints no median."""
    try:
        done = subprocess.run(line, capture_output=True, text=True, timeout=600, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        raise QanetError("the benchmark program cannot be run", got=error) from error
    return done.stdout + done.stderr


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


def measure_run(
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
    """`measure_run` in a fresh process, as two results of two days would be.

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
    document = measure_run(open_bundle(name), precision, float(seconds), float(slowdown), device, int(threads) or None)
    print(json.dumps(document, allow_nan=False))
    return 0


if __name__ == "__main__":
    run_module(main)
