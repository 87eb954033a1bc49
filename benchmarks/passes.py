"""Optional passes after the rounds: memory, video pipeline, sweeps, cold starts, energy, pieces, MLPerf, profiles.

Each pass runs where its option asks for it. Ctrl-C ends the passes, not the report. The error of a pass that fails
becomes a warning, and the other passes go on.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from qanet.benchmarks import harness
from qanet.benchmarks.costs import PeakMemory, cold_start, measure_extra
from qanet.benchmarks.energy import measure_energy
from qanet.benchmarks.harness import anchor_target, latency_of
from qanet.benchmarks.micro import copy_bytes_per_second, multiply_adds_per_second, plan_pieces, rows_of
from qanet.benchmarks.mlperf import run_mlperf
from qanet.benchmarks.options import MLPERF_SCENARIOS, BenchmarkOptions
from qanet.benchmarks.pipeline import PipelineTarget, trace_pipeline, write_trace
from qanet.benchmarks.profile import profile_engine
from qanet.benchmarks.results import Results
from qanet.benchmarks.samples import SampleSet, open_people_detector
from qanet.benchmarks.schema import MemoryUse, Micro, PipelineLatency, TraceFile
from qanet.benchmarks.targets import batches, parser_target, sweep_targets, sweeps_of
from qanet.benchmarks.variants import Variant
from qanet.export.graphs.source import graph_size
from qanet.runtime.backends.base import Engine
from qanet.runtime.detectors.base import Detector
from qanet.runtime.parser import Parser
from qanet.runtime.video.sources import open_source

_MICRO_ROUNDS = 30
_MLPERF_SAMPLES, _MLPERF_SECONDS = 64, 10.0
_ONE_WARM_UP = harness.WarmUp(window=1, max_calls=1)


class Passes:
    """The passes of one benchmark; `warnings` holds what went wrong in them."""

    def __init__(
        self,
        options: BenchmarkOptions,
        variants: Sequence[Variant],
        engines: Mapping[str, Engine],
        parsers: Mapping[str, Parser],
        samples: Mapping[str, SampleSet],
        session: harness.Session,
        log: Callable[[str], None] = lambda line: None,
    ):
        self.options, self.engines, self.parsers = options, engines, parsers
        self.samples, self.session, self.log = samples, session, log
        self.variants = [variant for variant in variants if variant.label in engines]
        self.warnings: list[str] = []

    def run(self, results: Results) -> dict[str, harness.Session]:
        """Run the passes that the options ask for. Fills in their sections; returns the rounds of further targets."""
        options, sessions = self.options, dict[str, harness.Session]()
        if self.session.interrupted or not self.variants:
            return sessions
        planned: list[tuple[bool, str, Callable[[Results, dict[str, harness.Session]], None]]] = [
            (True, "memory", self._memory),
            (options.pipeline_rounds > 0, "video pipeline", self._pipeline),
            (options.sweep_rounds > 0, "sweeps", self._sweeps),
            (options.cold_starts > 0, "cold starts", self._cold_starts),
            (options.energy_seconds > 0, "energy", self._energy),
            (options.micro, "pieces and floors", self._micro),
            (options.mlperf is not None, "MLPerf", self._mlperf),
            (options.profile, "profiles", self._profile),  # last: after it the engines record their CUDA graphs again
        ]
        for is_wanted, name, run in planned:
            if not is_wanted:
                continue
            if name != "memory":
                self.log(f"measuring: {name}")
            try:
                run(results, sessions)
            except KeyboardInterrupt:
                self.session.interrupted = True
                self.warnings.append(f"interrupted in: {name}; later passes were not run")
                break
            except Exception as error:  # the rounds are measured already and must not be lost
                self.warnings.append(f"{name}: {type(error).__name__}: {error}")
        return sessions

    def _memory(self, results: Results, sessions: dict[str, harness.Session]) -> None:
        reader = PeakMemory()
        peak_mib = reader.peak_mib()  # before the peak is reset
        results.memory = MemoryUse(peak_mib, measure_extra(self.session.measurements, reader))

    def _pipeline(self, results: Results, sessions: dict[str, harness.Session]) -> None:
        calls = [
            PipelineTarget(v, self.engines[v.label], self._detector(), open_source(self.options.input))
            for v in self.variants
        ]
        targets = [anchor_target(), *(call.target() for call in calls)]
        session = harness.run(targets, rounds=self.options.pipeline_rounds, warm_up=_ONE_WARM_UP)
        sessions["pipeline"] = session
        results.pipeline = {
            call.variant.label: PipelineLatency(
                frames=sum(call.frames),
                people=call.people,
                ms_per_frame=latency_of([ms / frames for ms, frames in zip(m.samples_ms, call.frames)]),
                stages_ms={stage: latency_of(values) for stage, values in call.stages_ms.items()},
            )
            for call, m in zip(calls, session.measurements[1:])
        }
        self._note_interrupt(session)

    def _sweeps(self, results: Results, sessions: dict[str, harness.Session]) -> None:
        planned = {
            v.label: sweep_targets(v.label, Parser(v.bundle, self.engines[v.label], v.tail), self.samples[v.model])
            for v in self.variants
        }
        targets = [target for entries in planned.values() for _, _, target in entries]
        session = harness.run(targets, rounds=self.options.sweep_rounds, warm_up=harness.WarmUp(window=1, max_calls=2))
        results.sweeps = sweeps_of(planned, session)
        self._note_interrupt(session)

    def _cold_starts(self, results: Results, sessions: dict[str, harness.Session]) -> None:
        results.cold_start = {
            v.label: cold_start(
                Path(v.bundle.path), v.device, v.precision, v.tail, self.options.threads, self.options.cold_starts
            )
            for v in self.variants
        }

    def _energy(self, results: Results, sessions: dict[str, harness.Session]) -> None:
        place = "gpu" if any(self.engines[v.label].runtime.startswith("tensorrt") for v in self.variants) else "cpu"
        targets = {
            v.label: parser_target(v, Parser(v.bundle, self.engines[v.label], v.tail), self.samples[v.model])
            for v in self.variants
        }
        results.energy = measure_energy(targets, self.options.energy_seconds, place)

    def _micro(self, results: Results, sessions: dict[str, harness.Session]) -> None:
        targets, pieces = plan_pieces(self.variants, self.engines, self.samples, _multiply_adds)
        session = harness.run(targets, rounds=_MICRO_ROUNDS)
        moved = copy_bytes_per_second()
        rates = {p: multiply_adds_per_second(p, self.options.threads) for p in {v.precision for v in self.variants}}
        results.micro = Micro(
            copy_bytes_per_second=round(moved),
            multiply_adds_per_second={precision: round(rate) for precision, rate in rates.items()},
            rows=rows_of(pieces, session, moved, rates),
        )
        self._note_interrupt(session)

    def _profile(self, results: Results, sessions: dict[str, harness.Session]) -> None:
        results.profile = {
            v.label: profile_engine(
                v, self.engines[v.label], *batches(self.samples[v.model], 1)[0], threads=self.options.threads
            )
            for v in self.variants
        }
        if self.options.output:
            last, path = self.variants[-1], self.options.output / "trace.json"
            source = open_source(self.options.input)
            events = trace_pipeline(last, self.engines[last.label], self._detector(), source)
            write_trace(path, events)
            results.trace = TraceFile(path.name, last.label, len(events))

    def _mlperf(self, results: Results, sessions: dict[str, harness.Session]) -> None:
        found, scenario = {}, self.options.mlperf or MLPERF_SCENARIOS[0]
        for v in self.variants:
            crops, scores = self.samples[v.model].crops(_MLPERF_SAMPLES)
            seconds = min(self.options.duration_s, _MLPERF_SECONDS)
            found[v.label] = run_mlperf(self.engines[v.label], crops, scores, scenario, seconds)
        results.mlperf = found

    def _detector(self) -> Detector:
        options = self.options
        return open_people_detector(options.detector, options.boxes, options.whole_image, options.threads)

    def _note_interrupt(self, session: harness.Session) -> None:
        if session.interrupted:
            raise KeyboardInterrupt


def _multiply_adds(variant: Variant) -> int:
    return graph_size(variant.bundle.graph(variant.precision))["multiply_adds"]
