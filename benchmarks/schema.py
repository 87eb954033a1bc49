"""The objects of results.json, a record each, with their keys in the order in which they are written.

`qanet.benchmarks.results` puts them together. What was not measured is None; fields marked `optional` are absent then.
"""

from dataclasses import dataclass, field

from qanet.benchmarks.record import Record, optional

FLOOR = 0.9  # least share of label pixels in which an engine agrees with FP32


@dataclass(frozen=True)
class Interval(Record):
    """An estimate and its 95% interval."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        """See `Record.to_json`; to 6 decimals."""
        return {"value": round(self.value, 6), "low": round(self.low, 6), "high": round(self.high, 6)}


@dataclass
class Metric(Record):
    """A metric with its 95% interval over the images; None where it is undefined."""

    value: float | None
    low: float | None
    high: float | None


@dataclass
class Latency(Record):
    """Figures of durations, milliseconds (`harness.summarize`); only `n` where there is no sample."""

    p50: float | None = optional()
    p90: float | None = optional()
    p95: float | None = optional()
    p99: float | None = optional()
    min: float | None = optional()
    max: float | None = optional()
    mean: float | None = optional()
    mad: float | None = optional()  # median absolute deviation from the median
    n: int = 0


@dataclass
class Cpu(Record):
    """The processor; see `machine.describe`."""

    model: str | None
    logical_cpus: int | None
    physical_cores: int | None
    isa: list[str]
    usable_cpus: int | None
    governor: str | None
    clock_mhz: float | None
    min_clock_mhz: float | None
    max_clock_mhz: float | None
    energy_preference: str | None
    platform_profile: str | None
    turbo: bool | None


@dataclass
class MachineAfter(Record):
    """What `machine.finish` read after the measurement."""

    load_average: list[float] | None
    clock_mhz: float | None
    temperatures_c: dict[str, float]
    throttled: dict[str, int]
    gpus: list[dict[str, str]]


@dataclass
class Machine(Record):
    """The machine of the measurement; see `machine.describe`."""

    cpu: Cpu
    memory: dict[str, float | None]  # total_gib, available_gib
    load_average: list[float] | None
    power_mode: str | None
    temperatures_c: dict[str, float]
    throttle_counts: dict[str, int]
    gpus: list[dict[str, str]]
    system: str
    versions: dict[str, str]
    git: str | None
    after: MachineAfter | None = optional()


@dataclass
class Difference(Record):
    """Absolute differences of a score over the crops."""

    mean: float
    max: float


@dataclass
class Agreement(Record):
    """Labels and scores of an engine against those of FP32, on the same crops; shares of pixels and mean IoU."""

    against: str
    crops: int
    pixels: float
    foreground: float | None  # over the pixels that either calls foreground
    miou: float
    quality_score_difference: Difference
    iou_score_difference: Difference
    pixel_score_difference: Difference


@dataclass
class InputInfo(Record):
    """The input and the people found in it."""

    name: str
    kind: str  # "video", "folder", "image"
    detector: str
    frames: int
    frames_with_people: int
    people: int
    people_per_frame: float
    image_sizes_hw: list[list[int]]
    decode_ms: Latency
    detect_ms: Latency


@dataclass
class Check(Record):
    """Whether an engine may be timed, and why not."""

    passed: bool
    against: str = ""  # the reference
    crops: int = 0
    label_agreement: float | None = None
    floor: float = FLOOR
    reason: str | None = None


@dataclass
class Execution(Record):
    """The precision that an open engine computes in; None for what the runtime does not report."""

    runtime: str | None = None
    graph: str | None = None  # key of the bundle's graph
    floating_point: str | None = None  # type of what is not INT8: "f32", "bf16", "f16"
    multiply_add_shares: dict[str, float] | None = None  # precision -> share, from the census of the built engine
    products: dict[str, int] | None = None  # precision -> matrix products of the open engine


@dataclass
class MeasuredAccuracy(Record):
    """Accuracy of a variant on a data set, measured in this run."""

    data: str
    images: int
    persons: int
    protocol: str
    boxes: str
    synthetic: bool
    note: str
    values: dict[str, Metric]


@dataclass
class MemoryUse(Record):
    """Peak resident memory, MiB: of the whole process, and of one more call by target."""

    process_peak_mib: float | None
    extra_mib: dict[str, float | None]


@dataclass
class PipelineLatency(Record):
    """The video pipeline of a variant."""

    frames: int
    people: int
    ms_per_frame: Latency
    stages_ms: dict[str, Latency]


@dataclass
class SweepPoint(Record):
    """Latency of the parser at `x` people, or `x` megapixels."""

    x: float
    latency_ms: Latency


@dataclass
class ColdStart(Record):
    """Fresh processes of a variant, from nothing to the first people."""

    repeats: int
    stages_ms: dict[str, Latency] | None = optional()
    total_ms: Latency | None = optional()
    error: str | None = None


@dataclass
class VariantEnergy(Record):
    """Energy of a variant; `reason` and no figure where it is unavailable."""

    status: str  # "measured" or "unavailable"
    reason: str | None
    frames: int | None = optional()
    seconds: float | None = optional()
    watts: float | None = optional()
    total_mj_per_frame: float | None = optional()
    mj_per_frame: float | None = optional()  # idle subtracted
    mj_per_person: float | None = optional()


@dataclass
class Energy(Record):
    """Energy of all variants, by one sensor."""

    status: str  # "measured" or "unavailable"
    reason: str | None
    source: str | None
    idle_w: float | None
    by_variant: dict[str, VariantEnergy]


@dataclass
class MicroRow(Record):
    """A piece of the parser and the least time that this machine needs for it."""

    target: str
    latency_ms: Latency
    bytes_moved: int
    multiply_adds: int
    floor_ms: float
    floor_by: str  # "bytes" or "multiply-adds"
    times_floor: float | None
    error: str | None
    note: str


@dataclass
class Micro(Record):
    """Pieces of the parser, and the measured rates that their floors come from."""

    copy_bytes_per_second: int
    multiply_adds_per_second: dict[str, int]
    rows: list[MicroRow]


@dataclass
class Mlperf(Record):
    """A run of MLPerf's load generator, judged by its own log."""

    scenario: str
    valid: bool
    p90_ms: float | None = optional()
    samples_per_second: float | None = optional()
    summary: dict[str, str] = field(default_factory=dict)
    queries: int = 0
    samples: int = 0


@dataclass(frozen=True)
class Layer(Record):
    """One executed layer; `ms` is the mean of a call, `precision` is "" where the runtime does not report it."""

    name: str
    block: str
    kind: str
    precision: str
    ms: float


@dataclass
class Block(Record):
    """The layers of one block of the network together."""

    block: str
    ms: float
    share: float | None
    layers: int
    ms_by_precision: dict[str, float]


@dataclass
class Profile(Record):
    """Time per layer and block, slowest first; `reason` and no figure for a runtime without a profiler."""

    source: str | None
    reason: str | None = optional()
    calls: int | None = optional()
    total_ms: float | None = optional()
    blocks: list[Block] | None = optional()
    layers: list[Layer] | None = optional()


@dataclass
class TraceFile(Record):
    """The trace of the pipeline's threads, a file in the folder of results.json."""

    file: str
    variant: str
    events: int


@dataclass
class Timing(Record):
    """How the rounds went, and what each kind of target includes."""

    clock: str
    order: str
    rounds: int
    seconds: float
    interrupted: bool
    clock_steps: int
    wall_shift_s: float | None  # how far the calendar clock was set meanwhile
    timed: dict[str, str]  # kind of target -> what is inside
    not_timed: list[str]
