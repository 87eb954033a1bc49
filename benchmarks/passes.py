"""What is measured after the rounds: memory, the video pipeline, sweeps, cold starts, energy, profiles, pieces.

Each pass runs where its argument asks for it. Ctrl-C ends the passes, not the report; one that fails says so and the
rest goes on.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from qanet.benchmarks import harness
from qanet.benchmarks.cold_start import cold_start
from qanet.benchmarks.costs import PeakMemory, measure_extra
from qanet.benchmarks.energy import measure_energy
from qanet.benchmarks.harness import anchor_target, summarize
from qanet.benchmarks.micro import copy_bytes_per_second, multiply_adds_per_second, plan_pieces, rows_of
from qanet.benchmarks.mlperf import run_mlperf
from qanet.benchmarks.pipeline import PipelineTarget, trace_pipeline, write_trace
from qanet.benchmarks.profile import profile_engine
from qanet.benchmarks.samples import SampleSet
from qanet.benchmarks.targets import batches, parser_target, sweep_targets, sweeps_of
from qanet.benchmarks.variants import Variant
from qanet.commandline import note
from qanet.export.size import graph_size
from qanet.runtime.detectors.choice import open_detector
from qanet.runtime.engines.base import Engine
from qanet.runtime.parser import Parser
from qanet.runtime.video.sources.open import open_source

_MICRO_ROUNDS = 30
_MLPERF_SAMPLES, _MLPERF_SECONDS = 64, 10.0
_ONE_WARM_UP = harness.WarmUp(window=1, max_calls=1)


class Passes:
    """The passes of one benchmark; `warnings` holds what went wrong in them."""

    def __init__(
        self,
        args: argparse.Namespace,
        variants: Sequence[Variant],
        engines: Mapping[str, Engine],
        parsers: Mapping[str, Parser],
        samples: Mapping[str, SampleSet],
        session: harness.Session,
    ):
        self.args, self.engines, self.parsers, self.samples, self.session = args, engines, parsers, samples, session
        self.variants = [variant for variant in variants if variant.label in engines]
        self.warnings: list[str] = []

    def run(self, parts: dict[str, Any]) -> dict[str, harness.Session]:
        """Run what the arguments ask for; results go into `parts`, further rounds into what is returned."""
        args, sessions = self.args, dict[str, harness.Session]()
        if self.session.interrupted or not self.variants:
            return sessions
        planned: list[tuple[bool, str, Callable[[dict[str, Any], dict[str, harness.Session]], None]]] = [
            (True, "memory", self._memory),
            (args.pipeline_rounds > 0, "video pipeline", self._pipeline),
            (args.sweep_rounds > 0, "sweeps", self._sweeps),
            (args.cold_starts > 0, "cold starts", self._cold_starts),
            (args.energy_seconds > 0, "energy", self._energy),
            (args.micro, "pieces and floors", self._micro),
            (args.mlperf is not None, "MLPerf", self._mlperf),
            (args.profile, "profiles", self._profile),  # last: after it the engines record their CUDA graphs anew
        ]
        for is_wanted, name, run in planned:
            if not is_wanted:
                continue
            if name != "memory":
                note(f"measuring: {name}")
            try:
                run(parts, sessions)
            except KeyboardInterrupt:
                self.session.interrupted = True
                self.warnings.append(f"interrupted in: {name}; what would have followed was not measured")
                break
            except Exception as error:  # the rounds are measured already and must not be lost
                self.warnings.append(f"{name}: {type(error).__name__}: {error}")
        return sessions

    def _memory(self, parts: dict[str, Any], sessions: dict[str, harness.Session]) -> None:
        reader = PeakMemory()
        peak_mib = reader.peak_mib()  # before the peak is reset
        parts["memory"] = {"process_peak_mib": peak_mib, "extra_mib": measure_extra(self.session.measurements, reader)}

    def _pipeline(self, parts: dict[str, Any], sessions: dict[str, harness.Session]) -> None:
        calls = [
            PipelineTarget(v, self.engines[v.label], open_detector(self.args), open_source(self.args.input))
            for v in self.variants
        ]
        targets = [anchor_target(), *(call.target() for call in calls)]
        session = harness.run(targets, rounds=self.args.pipeline_rounds, warm_up=_ONE_WARM_UP)
        sessions["pipeline"] = session
        parts["pipeline"] = {
            call.variant.label: {
                "frames": sum(call.frames),
                "people": call.people,
                "ms_per_frame": summarize([ms / frames for ms, frames in zip(m.samples_ms, call.frames)]),
                "stages_ms": {stage: summarize(values) for stage, values in call.stages_ms.items()},
            }
            for call, m in zip(calls, session.measurements[1:])
        }
        self._note_interrupt(session)

    def _sweeps(self, parts: dict[str, Any], sessions: dict[str, harness.Session]) -> None:
        planned = {
            v.label: sweep_targets(v.label, Parser(v.bundle, self.engines[v.label], v.tail), self.samples[v.model])
            for v in self.variants
        }
        targets = [target for entries in planned.values() for _, _, target in entries]
        session = harness.run(targets, rounds=self.args.sweep_rounds, warm_up=harness.WarmUp(window=1, max_calls=2))
        parts["sweeps"] = sweeps_of(planned, session)
        self._note_interrupt(session)

    def _cold_starts(self, parts: dict[str, Any], sessions: dict[str, harness.Session]) -> None:
        parts["cold_start"] = {
            v.label: cold_start(
                Path(v.bundle.path), v.device, v.precision, v.tail, self.args.threads, self.args.cold_starts
            )
            for v in self.variants
        }

    def _energy(self, parts: dict[str, Any], sessions: dict[str, harness.Session]) -> None:
        place = "gpu" if any(self.engines[v.label].runtime.startswith("tensorrt") for v in self.variants) else "cpu"
        targets = {
            v.label: parser_target(v, Parser(v.bundle, self.engines[v.label], v.tail), self.samples[v.model])
            for v in self.variants
        }
        parts["energy"] = measure_energy(targets, self.args.energy_seconds, place)

    def _micro(self, parts: dict[str, Any], sessions: dict[str, harness.Session]) -> None:
        targets, pieces = plan_pieces(self.variants, self.engines, self.samples, _multiply_adds)
        session = harness.run(targets, rounds=_MICRO_ROUNDS)
        moved = copy_bytes_per_second()
        rates = {p: multiply_adds_per_second(p, self.args.threads) for p in {v.precision for v in self.variants}}
        parts["micro"] = {
            "copy_bytes_per_second": round(moved),
            "multiply_adds_per_second": {p: round(r) for p, r in rates.items()},
            "rows": rows_of(pieces, session, moved, rates),
        }
        self._note_interrupt(session)

    def _profile(self, parts: dict[str, Any], sessions: dict[str, harness.Session]) -> None:
        parts["profile"] = {
            v.label: profile_engine(
                v, self.engines[v.label], *batches(self.samples[v.model], 1)[0], threads=self.args.threads
            )
            for v in self.variants
        }
        last = self.variants[-1]
        source = open_source(self.args.input)
        events = trace_pipeline(last, self.engines[last.label], open_detector(self.args), source)
        path = Path(self.args.output) / "trace.json"
        write_trace(path, events)
        parts["trace"] = {"file": path.name, "variant": last.label, "events": len(events)}

    def _mlperf(self, parts: dict[str, Any], sessions: dict[str, harness.Session]) -> None:
        found = {}
        for v in self.variants:
            crops, scores = self.samples[v.model].crops(_MLPERF_SAMPLES)
            seconds = min(self.args.duration, _MLPERF_SECONDS)
            found[v.label] = run_mlperf(self.engines[v.label], crops, scores, self.args.mlperf, seconds)
        parts["mlperf"] = found

    def _note_interrupt(self, session: harness.Session) -> None:
        if session.interrupted:
            raise KeyboardInterrupt


def _multiply_adds(variant: Variant) -> int:
    return graph_size(variant.bundle.graph(variant.precision))["multiply_adds"]
