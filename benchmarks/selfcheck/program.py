"""The harness beside the runtime's own benchmark program on the same engine, in turns.

OpenVINO's is benchmark_app of its wheel, TensorRT's is trtexec. Each runs in a process of its own, one after the other
with the harness, so that a slow minute hits both.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qanet.benchmarks import harness
from qanet.benchmarks.harness import summarize
from qanet.benchmarks.verdict import interval_of, percentile_statistic
from qanet.bundle import Bundle
from qanet.cpu_precision import openvino_core
from qanet.errors import QanetError
from qanet.runtime.engines.base import Engine

AGREEMENT = 0.02  # greatest difference of the medians, a fraction
_TRTEXEC = Path("/usr/src/tensorrt/bin/trtexec")  # where NVIDIA's packages put it
_MEDIAN = percentile_statistic(50)
_APP = "from openvino.tools.benchmark.main import main; main()"
_APP_MEDIAN = re.compile(r"Median:\s+([\d.]+)\s*(us|ms)\b")  # microseconds where a call takes less than one ms
_TRTEXEC_MEDIAN = re.compile(r"\bLatency: .*?median = ([\d.]+) (ms)\b")
_MS = {"us": 1e-3, "ms": 1.0}

Spawn = Callable[[list[str]], str]  # command line to what it printed


def openvino_command(graph: Path, bundle: Bundle, engine: Engine, threads: int | None, seconds: float) -> list[str]:
    """benchmark_app on a graph, compiled as the engine was: one crop a call, one request after the other."""
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
    import openvino

    from qanet.runtime.engines.openvino import select_outputs
    from qanet.runtime.engines.select import graphs_of

    model = select_outputs(
        openvino_core().read_model(bundle.graph(graphs_of(bundle, engine.precision)[0])), engine.outputs
    )
    openvino.save_model(model, str(file), compress_to_fp16=False)


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


def read_median_ms(said: str, pattern: re.Pattern[str]) -> float:
    """The median latency in a program's output; QanetError with its last line where there is none."""
    found = pattern.search(said)
    if found is None:
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        raise QanetError("the benchmark program told no median", got=lines[-1][:200] if lines else "nothing")
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
        target: the harness's target on `engine`, one crop a call.
        pairs: of turns.
        seconds: of each turn.
    Returns:
        Plain data: program_ms and harness_ms (a median a turn), ratio: median over the pairs of harness over program
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
            program_ms.append(read_median_ms((spawn or _spawn)(line), pattern))
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


def _spawn(line: list[str]) -> str:
    """What a program printed; QanetError where it cannot be run. Its exit code is left to whoever reads the output."""
    try:
        done = subprocess.run(line, capture_output=True, text=True, timeout=600, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        raise QanetError("the benchmark program cannot be run", got=error) from error
    return done.stdout + done.stderr
