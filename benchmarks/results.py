"""results.json as one record: what was measured, and on what.

Schema 2. `targets` holds an entry per target with its raw samples, `comparison` an entry per variant (model, precision,
tail, device) with its latencies, accuracy and agreement, `stages` the parts of the whole-parser target by variant.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qanet.benchmarks.record import Record, optional
from qanet.benchmarks.schema import (
    Agreement,
    Check,
    ColdStart,
    Energy,
    Execution,
    InputInfo,
    Interval,
    Latency,
    Machine,
    MeasuredAccuracy,
    MemoryUse,
    Micro,
    Mlperf,
    PipelineLatency,
    Profile,
    SweepPoint,
    Timing,
    TraceFile,
    VariantEnergy,
)
from qanet.errors import QanetError

SCHEMA_VERSION = 2
KIND = "qanet benchmark"


@dataclass
class TargetResult(Record):
    """One target: what it is, its figures, and its raw samples in milliseconds.

    Attributes:
        kind: as `harness.Target.kind`, or "refused" for a variant that failed its check.
        session: the rounds that it was timed in; targets of one session pair by round.
        status: "measured", "not measured", "failed" or "refused"; `error` has the reason of the last two.
        preempted_share: of the calls, during which the system gave a processor to another process.
    """

    name: str
    kind: str
    variant: str | None = None
    precision: str | None = None
    runtime: str | None = None
    batch: float | None = None
    session: str | None = None
    status: str = "not measured"
    error: str | None = None
    warmup_calls: int = 0
    warmup_stable: bool = False
    first_call_ms: float | None = None
    latency_ms: Latency = field(default_factory=Latency)
    cpu_ms: Latency = field(default_factory=Latency)
    preempted_share: float | None = None
    p50_interval_ms: Interval | None = None
    calls_per_second: float | None = None
    people_per_second: float | None = None
    peak_extra_mib: float | None = None
    samples_ms: list[float] = field(default_factory=list)
    cpu_samples_ms: list[float] = field(default_factory=list)


@dataclass
class Scores(Record):
    """The two accuracies that are shown next to a latency; fractions."""

    miou: float | None = None
    pixel_accuracy: float | None = None


@dataclass
class VariantResult(Record):
    """A variant's figures side by side: a row of the comparison. The PyTorch form has a row too, with tail "pytorch".

    Attributes:
        engine_speed_up: how many times as long FP32 takes, in the same rounds; likewise tail and parser.
        over_baseline: how many times as long the PyTorch form takes.
        accuracy: measured in this run, else from the bundle's accuracy card; accuracy_note has the source.
        pareto: whether no other variant is as fast and as accurate; None where either was not measured.
    """

    label: str
    model: str | None = None
    precision: str | None = None
    tail: str | None = None
    device: str | None = None
    input_hw: list[int] | None = None
    status: str = "not measured"
    engine_ms: Latency | None = None
    engine_speed_up: float | None = None
    engine_speed_up_interval: Interval | None = None
    tail_ms: Latency | None = None
    tail_speed_up: float | None = None
    tail_speed_up_interval: Interval | None = None
    parser_ms: Latency | None = None
    parser_speed_up: float | None = None
    parser_speed_up_interval: Interval | None = None
    over_baseline: Interval | None = None
    execution: Execution | None = None
    open_ms: float | None = None
    accuracy: Scores = field(default_factory=Scores)
    accuracy_note: str | None = None
    measured_accuracy: MeasuredAccuracy | None = None
    agreement: Agreement | None = None
    energy: VariantEnergy | None = None
    pareto: bool | None = None


@dataclass
class ModelComparison(Record):
    """Two variants that differ in the model only, timed in the same rounds; new over old."""

    kind: str
    old: str
    new: str
    of: str  # "latency", or "processor time" where other processes interrupted the calls
    ratio: Interval | None
    verdict: str
    reason: str


@dataclass
class Results(Record):
    """The whole document. Dicts without another note are by the variant's label."""

    schema_version: int = SCHEMA_VERSION
    kind: str = KIND
    qanet_edge: str = ""  # version
    created: str = ""  # ISO 8601, UTC
    bundle: dict[str, Any] = field(default_factory=dict)  # the first of `bundles`
    bundles: list[dict[str, Any]] = field(default_factory=list)  # `document.describe_bundle` of each
    machine: Machine = field(default_factory=lambda: Machine.from_json({}))
    agreement: dict[str, Agreement] = field(default_factory=dict)
    input: InputInfo = field(default_factory=lambda: InputInfo.from_json({}))
    checks: dict[str, Check] = field(default_factory=dict)
    executions: dict[str, Execution] = field(default_factory=dict)
    open_ms: dict[str, float] = field(default_factory=dict)  # to load or compile the engine
    accuracy: dict[str, MeasuredAccuracy] = field(default_factory=dict)
    parse: dict[str, Any] | None = optional()  # the summary of a `qanet parse --json`
    memory: MemoryUse | None = optional()
    pipeline: dict[str, PipelineLatency] | None = optional()
    sweeps: dict[str, dict[str, list[SweepPoint]]] | None = optional()  # "persons" and "area" -> by label
    cold_start: dict[str, ColdStart] | None = optional()
    energy: Energy | None = optional()
    micro: Micro | None = optional()
    mlperf: dict[str, Mlperf] | None = optional()
    profile: dict[str, Profile] | None = optional()
    trace: TraceFile | None = optional()
    timing: Timing = field(default_factory=lambda: Timing.from_json({}))
    targets: list[TargetResult] = field(default_factory=list)
    stages: dict[str, dict[str, Latency]] = field(default_factory=dict)  # label -> stage
    comparison: list[VariantResult] = field(default_factory=list)
    models: list[ModelComparison] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def target(self, kind: str, variant: str | None) -> TargetResult | None:
        """A variant's measured target of a kind, the engine's at batch 1; None where it was not measured."""
        found = (t for t in self.targets if (t.kind, t.variant) == (kind, variant) and t.samples_ms)
        return next((t for t in found if kind != "engine" or t.batch == 1), None)


def read_results(path: Path) -> Results:
    """A results.json of the current schema.

    Raises:
        QanetError: see `read_document`; or an older schema, or damaged content.
    """
    document = read_document(path)
    if document["schema_version"] != SCHEMA_VERSION:
        raise QanetError(
            f"{path} has another schema and cannot be compared",
            expected=f"schema {SCHEMA_VERSION}",
            got=f"schema {document['schema_version']}",
            next_command="measure again with qanet benchmark",
        )
    try:
        return Results.from_json(document)
    except (TypeError, AttributeError, KeyError, ValueError) as error:
        raise QanetError(f"{path} is damaged", expected="a results.json of qanet benchmark", got=error) from error


def read_document(path: Path) -> dict[str, Any]:
    """A results.json as plain data.

    Raises:
        QanetError: no such file, not JSON, another document, or a newer schema.
    """
    document = read_json(path)
    version = document.get("schema_version")
    if document.get("kind") != KIND or not isinstance(version, int):
        raise QanetError(f"{path} is no benchmark result", expected="a results.json of qanet benchmark")
    if version > SCHEMA_VERSION:
        raise QanetError(
            f"{path} was written by a newer qanet-edge",
            expected=f"schema {SCHEMA_VERSION} or older",
            got=f"schema {version}",
            next_command="pip install --upgrade qanet-edge",
        )
    return document


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; QanetError where there is none."""
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise QanetError(f"{path} cannot be read as JSON", got=error) from error
    if not isinstance(document, dict):
        raise QanetError(f"{path} does not hold a JSON object", got=type(document).__name__)
    return document
