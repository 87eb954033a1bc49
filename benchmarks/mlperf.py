"""MLPerf's load generator around an engine: SingleStream (one crop after the other) and Offline (all at once).

Its own log is parsed, and its own verdict on the run's validity kept: a short run is INVALID by its rules, whatever it
measured. Needs `pip install mlcommons-loadgen`.
"""

import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.benchmarks.schema import Mlperf
from qanet.errors import QanetError
from qanet.runtime.backends.base import Engine
from qanet.runtime.parser import MAX_BATCH
from qanet.scratch import scratch_folder

SCENARIOS = ("SingleStream", "Offline")
_SUMMARY = "mlperf_log_summary.txt"
_RESULTS = {  # the line that a scenario is judged by, and what it means
    "SingleStream": ("90th percentile latency (ns)", "p90_ms", 1e-6),
    "Offline": ("Samples per second", "samples_per_second", 1.0),
}


def run_mlperf(
    engine: Engine,
    crops: NDArray[np.uint8],
    box_scores: NDArray[np.float32],
    scenario: str,
    duration_s: float = 10.0,
    loadgen: Any = None,
) -> Mlperf:
    """One performance run.

    Args:
        crops, box_scores: (N, H, W, 3) uint8 and (N,) float32: the sample library.
        scenario: one of SCENARIOS.
        duration_s: least duration that loadgen is asked for.
        loadgen: the module mlperf_loadgen; None imports it.
    Raises:
        QanetError: loadgen is not installed, or its log has no result.
    """
    lg = _import() if loadgen is None else loadgen
    settings = lg.TestSettings()
    settings.scenario = getattr(lg.TestScenario, scenario)
    settings.mode = lg.TestMode.PerformanceOnly
    settings.min_duration_ms = round(duration_s * 1e3)
    settings.min_query_count = 100 if scenario == "SingleStream" else 1
    served = _Server(lg, engine, crops, box_scores)
    if scenario == "Offline":  # one query, as large as the duration asks for
        settings.offline_expected_qps = samples_per_second(engine, crops, box_scores)
    sut = lg.ConstructSUT(served.issue, served.flush)
    qsl = lg.ConstructQSL(len(crops), len(crops), lambda samples: None, lambda samples: None)
    try:
        with scratch_folder() as folder:
            output = lg.LogOutputSettings()
            output.outdir, output.copy_summary_to_stdout = str(folder), False
            logs = lg.LogSettings()
            logs.log_output, logs.enable_trace = output, False
            lg.StartTestWithLogSettings(sut, qsl, settings, logs)
            text = (Path(folder) / _SUMMARY).read_text()
    finally:
        lg.DestroyQSL(qsl)
        lg.DestroySUT(sut)
    if served.error is not None:
        raise served.error
    return replace(parse_summary(text, scenario), queries=served.queries, samples=served.samples)


def samples_per_second(engine: Engine, crops: NDArray[np.uint8], box_scores: NDArray[np.float32]) -> float:
    """The rate of one batch, the faster of two, for loadgen to size its query by."""
    seconds = []
    for _ in range(2):
        begin = time.perf_counter()
        engine.run(crops[:MAX_BATCH], box_scores[:MAX_BATCH])
        seconds.append(time.perf_counter() - begin)
    return min(len(crops), MAX_BATCH) / max(min(seconds), 1e-6)


class _Server:
    """Answers loadgen's queries; an error ends nothing at once, since it would pass through C++."""

    def __init__(self, lg: Any, engine: Engine, crops: NDArray[np.uint8], box_scores: NDArray[np.float32]):
        self._lg, self._engine, self._crops, self._scores = lg, engine, crops, box_scores
        self.queries = self.samples = 0
        self.error: Exception | None = None

    def issue(self, samples: list[Any]) -> None:
        """Run the samples in batches and report each as done."""
        self.queries += 1
        self.samples += len(samples)
        for start in range(0, len(samples), MAX_BATCH):
            part = samples[start : start + MAX_BATCH]
            chosen = [sample.index for sample in part]
            try:
                if self.error is None:
                    self._engine.run(self._crops[chosen], self._scores[chosen])
            except Exception as error:
                self.error = error
            self._lg.QuerySamplesComplete([self._lg.QuerySampleResponse(sample.id, 0, 0) for sample in part])

    def flush(self) -> None:
        """Nothing is held back."""


def parse_summary(text: str, scenario: str) -> Mlperf:
    """loadgen's summary log.

    Raises:
        QanetError: the line that the scenario is judged by is missing.
    """
    lines = dict(_pair(line) for line in text.splitlines() if ":" in line)
    key, name, factor = _RESULTS[scenario]
    found = next((value for line, value in lines.items() if re.sub(r"^(\d+)\.0+th", r"\1th", line) == key), None)
    if found is None:
        raise QanetError("loadgen's log has no result", expected=key, got=f"{len(lines)} other lines")
    figures = {name: round(float(found) * factor, 6)}
    return Mlperf(scenario, lines.get("Result is", "") == "VALID", summary=lines, **figures)  # type: ignore[arg-type]


def _pair(line: str) -> tuple[str, str]:
    key, _, value = line.partition(":")
    return key.strip(), value.strip()


def _import() -> Any:
    try:
        import mlperf_loadgen
    except ImportError as error:
        raise QanetError(
            "MLPerf's load generator is not installed", next_command="pip install mlcommons-loadgen"
        ) from error
    return mlperf_loadgen
