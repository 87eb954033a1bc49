"""`BenchmarkOptions`: everything that `qanet benchmark` can be asked for, with its defaults and limits."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qanet.errors import QanetError

MLPERF_SCENARIOS = ("SingleStream", "Offline")


@dataclass(frozen=True)
class BenchmarkOptions:
    """What to measure, and on what.

    Attributes:
        input: a video, an image, or a folder of images with people.
        precisions: "fp32", "fp16", ...; None: every graph of the bundles.
        tails: "kernel", "graph".
        devices: as `qanet.load` takes them.
        threads: CPU threads of the engines; None leaves the choice to the runtime.
        detector: a bundle or an ONNX file that finds the people; None: the shipped one, person-lite0.
        boxes: a JSON file of boxes instead of a detector.
        whole_image: one person per image instead, who fills it.
        frames: number of frames to take from the input.
        duration_s: seconds of timed rounds; `rounds` ends them earlier where given.
        baseline: time the method's PyTorch form in the same rounds.
        data, data_format, split, protocol, images: measure accuracy on this data set, on its first `images` images.
        pipeline_rounds, sweep_rounds: rounds of the video pipeline, and of the sweeps over people and image area.
        cold_starts: fresh processes per variant.
        energy_seconds: seconds per variant that the power sensors are read for.
        profile: time per layer and block, and a trace of the pipeline's threads.
        micro: pieces of the parser, each with its floor.
        mlperf: a scenario of MLPerf's load generator.
        output: folder of results.json, results.csv, report.html and trace.json; None writes no file.
        parse_summary: JSON that `qanet parse --json` printed, for the report.
        overlay: a video that `qanet parse` wrote, to take the report's sample frames from.
    Raises:
        QanetError: a number out of range, or no such overlay.
    """

    input: str
    precisions: Sequence[str] | None = None
    tails: Sequence[str] = ("kernel",)
    devices: Sequence[str] = ("auto",)
    threads: int | None = None
    detector: str | None = None
    boxes: str | None = None
    whole_image: bool = False
    frames: int = 24
    duration_s: float = 20.0
    rounds: int | None = None
    baseline: bool = False
    data: str | None = None
    data_format: str | None = None  # by what lies in the folder
    split: str | None = None
    protocol: str = "official"
    images: int | None = None
    pipeline_rounds: int = 0
    sweep_rounds: int = 0
    cold_starts: int = 0
    energy_seconds: float = 0.0
    profile: bool = False
    micro: bool = False
    mlperf: str | None = None
    output: Path | None = None
    parse_summary: Path | None = None
    overlay: Path | None = None

    def __post_init__(self) -> None:
        for name in ("frames", "rounds", "threads", "images"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise QanetError(f"bad --{name}", expected="1 or more", got=value)
        for name in ("pipeline_rounds", "cold_starts", "energy_seconds", "sweep_rounds"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise QanetError(f"bad --{name.replace('_', '-')}", expected="0 or more", got=getattr(self, name))
        if not 0 < self.duration_s < float("inf"):
            raise QanetError("bad --duration", expected="seconds above 0", got=self.duration_s)
        if self.mlperf is not None and self.mlperf not in MLPERF_SCENARIOS:
            raise QanetError("unknown --mlperf", expected=f"one of {', '.join(MLPERF_SCENARIOS)}", got=self.mlperf)
        if self.overlay and not self.overlay.is_file():
            command = f"qanet parse {self.input} {self.overlay}"
            raise QanetError(f"no overlay video {self.overlay}", next_command=command)
