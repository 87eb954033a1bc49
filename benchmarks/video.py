"""The whole pipeline over a clip: frames per second, where the processor time goes, memory, time to the first result.

The processor time of the networks is separated from that of everything else in the process while all of it runs.
OpenVINO works in the thread that calls `infer` and in a pool of its own. The calls are timed by the clock of their
thread; the pool's threads are those that appear when the networks are opened and run, and the system counts their
time. OpenCV and the tail have pools too, which `start_other_pools` creates before.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from qanet.benchmarks import machine
from qanet.benchmarks.costs import PeakMemory, first_result
from qanet.benchmarks.harness import summarize
from qanet.benchmarks.samples import open_people_detector
from qanet.bundle import open_bundle
from qanet.commandline import table
from qanet.errors import QanetError
from qanet.runtime.backends.openvino import import_openvino
from qanet.runtime.parser import Parser, load
from qanet.runtime.track.tracker import BYTE_SCORE
from qanet.runtime.video import pipeline
from qanet.runtime.video.frame import Frame, Source
from qanet.runtime.video.outputs import open_sinks
from qanet.runtime.video.sources import open_source
from qanet.runtime.video.summary import Summary
from qanet.scratch import scratch_folder

_TASKS = Path("/proc/self/task")
_SIDE_PX = 2048  # of an image that is worth several threads


class NetworkClock:
    """Adds up the networks' processor time between entering and leaving; one at a time in a process.

    Args:
        open_networks: called once; opens every network and runs it, and nothing else in it starts threads that stay.
        request: the class whose `infer` runs a network; None: OpenVINO's.
        tasks: a folder of /proc with an entry a thread.

    Attributes:
        cpu_s, calls: of the last time between entering and leaving.
    """

    def __init__(self, open_networks: Callable[[], object], request: Any = None, tasks: Path = _TASKS):
        self._request, self._tasks = request, tasks
        self._lock = threading.Lock()
        self.cpu_s, self.calls = 0.0, 0
        before = self._threads()
        open_networks()
        self._pool = self._threads() - before

    def __enter__(self) -> "NetworkClock":
        if self._request is None:
            self._request = import_openvino().InferRequest
        self.cpu_s, self.calls = 0.0, 0
        self._original = self._request.infer
        self._request.infer = self._timed(self._original)
        self._begin_s = self._pool_s()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._request.infer = self._original
        self.cpu_s += self._pool_s() - self._begin_s

    def _timed(self, infer: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            begin_s = time.thread_time()
            try:
                return infer(*args, **kwargs)
            finally:
                with self._lock:
                    self.cpu_s += time.thread_time() - begin_s
                    self.calls += 1

        return timed

    def _threads(self) -> set[str]:
        return {task.name for task in self._tasks.iterdir()} if self._tasks.is_dir() else set()

    def _pool_s(self) -> float:
        """Seconds that the pool's threads have been on a processor; a thread that is gone counts no more."""
        spent_ns = 0
        for name in self._pool:
            try:
                spent_ns += int((self._tasks / name / "schedstat").read_text().split()[0])
            except (OSError, ValueError, IndexError):
                continue
        return spent_ns / 1e9


def measure_video(
    video: str,
    model: str | Path,
    precision: str = "auto",
    device: str = "auto",
    tail: str = "kernel",
    detector: str | None = None,
    boxes: str | None = None,
    whole_image: bool = False,
    threads: int | None = None,
    rounds: int = 3,
    cold_starts: int = 3,
    log: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Run the whole pipeline over a clip, run after run, into results that are thrown away.

    Args:
        model, precision, device, tail, threads: as `qanet.load` takes them.
        detector, boxes, whole_image: as `BenchmarkOptions` has them. With a detector, people are tracked, and carried
            over the frames between two detections.
        rounds: number of runs.
        cold_starts: number of processes that are started to time the first result.
        log: called with a line after each run.
    Returns:
        Plain data: what ran on what, `figures` of the runs, peak_rss_mib, first_result, warnings.
    Raises:
        QanetError: no such video, or nothing in it.
        KeyboardInterrupt: after Ctrl-C; the runs before it are lost.
    """
    whole_image = whole_image or (open_bundle(model).view == "whole" and not (detector or boxes))
    carry = not (boxes or whole_image)
    facts = machine.describe()
    first = next(iter(open_source(video)), None)
    if first is None:
        raise QanetError(f"{video} has no frame", expected="a video", got="nothing to parse")
    start_other_pools()
    opened: list[Parser] = []

    def open_networks() -> None:
        people = open_people_detector(detector, boxes, whole_image, threads, BYTE_SCORE if carry else None)
        opened.append(load(model, device, precision, tail, people, threads))
        warm_up(opened[0], first)

    clock, runs = NetworkClock(open_networks), list[Run]()
    parser = opened[0]
    for number in range(rounds):
        run = run_once(open_source(video), parser, clock, None if carry else 1, carry)
        if run.summary.interrupted:
            raise KeyboardInterrupt
        log(f"run {number + 1}: {run.summary.frames / run.summary.seconds:.1f} frames/s")
        runs.append(run)
    peak_mib = PeakMemory().peak_mib()
    again = [video, "--model", str(model), "--precision", precision, "--device", device, "--tail", tail]
    again += ["--threads", str(threads)] if threads else []
    again += ["--detector", detector] if detector else ["--boxes", boxes] if boxes else []
    again += ["--whole-image"] if whole_image else []
    return {
        "video": Path(video).name,
        "model": parser.bundle.name,
        "precision": parser.engine.precision,
        "runtime": parser.engine.runtime,
        "detector": parser.detector.name if parser.detector else None,
        "threads": threads,
        "machine": facts,
        **figures(runs),
        "peak_rss_mib": peak_mib,
        "first_result": first_result(again, cold_starts),
        "warnings": [line for line in (machine.busy_warning(facts),) if line],
    }


def video_text(document: dict[str, Any]) -> str:
    """The result of `measure_video` for the terminal."""
    rate, cpu = document["frames_per_second"], document["cpu_ms_per_frame"]
    share, first = document["networks_share"]["median"], document["first_result"]
    began = f"{first['median_s']:.2f} s" if first["error"] is None else f"not measured: {first['error']}"
    peak = document["peak_rss_mib"]
    rows = [(name, *(s[key] for key in ("p50", "p90", "p99", "n"))) for name, s in document["stages_ms"].items()]
    runs = ", ".join(f"{value:.1f}" for value in rate["all"])
    return "\n".join(
        [
            *(f"warning: {line}" for line in document["warnings"]),
            f"{document['video']}: {document['frames']} frames, {document['people']} people, {document['detections']} "
            f"detections ({document['model']} {document['precision']} on {document['runtime']}, "
            f"{document['detector']})",
            f"{rate['median']:.1f} frames/s, median of {document['runs']} runs ({runs})",
            f"processor time {cpu['median']:.1f} ms per frame: {share:.0%} in the networks, {1 - share:.0%} outside; "
            f"{document['busy_cpus']['median']:.2f} processors busy",
            f"first result {began} after the start; most resident memory {'-' if peak is None else f'{peak:.0f} MiB'}",
            table(rows, ("stage", "p50 ms", "p90 ms", "p99 ms", "samples")),
        ]
    )


@dataclass(frozen=True)
class Run:
    """One run: the pipeline's summary, and processor seconds of the process and of the networks in it."""

    summary: Summary
    cpu_s: float
    networks_cpu_s: float
    network_calls: int


def warm_up(parser: Parser, frame: Frame) -> None:
    """Both networks once: on a frame, and on its middle where no person was found."""
    found = parser.detect(frame.image, frame.index)
    height, width = frame.image.shape[:2]
    boxes = found.boxes if len(found) else [[width / 4, height / 4, width * 3 / 4, height * 3 / 4]]
    parser(frame.image, boxes=boxes)


def run_once(source: Source, parser: Parser, clock: NetworkClock, detect_every: int | None, carry: bool) -> Run:
    """The whole source into a file of results that is thrown away."""
    parser.times.samples_ms.clear()
    with scratch_folder() as folder:
        sinks = open_sinks(None, str(folder / "results.jsonl"), source.kind, source.fps)
        begin_s = time.process_time()
        with clock:
            summary = pipeline.run(source, parser, sinks, detect_every=detect_every, carry=carry)
        cpu_s = time.process_time() - begin_s
    return Run(summary, cpu_s, clock.cpu_s, clock.calls)


def figures(runs: Sequence[Run]) -> dict[str, Any]:
    """Medians over runs that parsed the same frames.

    Returns:
        Plain data: frames, people, detections, runs; frames_per_second, cpu_ms_per_frame, networks_share (of the
        processor time), busy_cpus (processors kept busy on average): the median, and every run's; stages_ms: the
        samples of all runs together.
    """
    rows = [
        {
            "frames_per_second": r.summary.frames / r.summary.seconds,
            "cpu_ms_per_frame": r.cpu_s / r.summary.frames * 1e3,
            "networks_share": r.networks_cpu_s / r.cpu_s,
            "busy_cpus": r.cpu_s / r.summary.seconds,
        }
        for r in runs
    ]
    stages: dict[str, list[float]] = {}
    for run in runs:
        for name, samples in run.summary.stages_ms.items():
            stages.setdefault(name, []).extend(samples)
    last = runs[-1].summary
    return {
        "frames": last.frames,
        "people": last.people,
        "detections": last.detections,
        "runs": len(runs),
        **{
            name: {"median": float(np.median([row[name] for row in rows])), "all": [row[name] for row in rows]}
            for name in rows[0]
        },
        "network_calls": runs[-1].network_calls,
        "stages_ms": {name: summarize(samples) for name, samples in stages.items()},
    }


def start_other_pools() -> None:
    """Make OpenCV and the tail create their threads."""
    import cv2

    from qanet.runtime.kernels import choose_kernels

    image = np.zeros((_SIDE_PX, _SIDE_PX, 3), np.uint8)
    cv2.resize(cv2.warpAffine(image, np.eye(2, 3), (_SIDE_PX, _SIDE_PX)), None, fx=0.5, fy=0.5)
    choose_kernels().pixel_score(
        np.zeros((1, 13, 128, 128), np.float32), [[0, 0, _SIDE_PX, _SIDE_PX]], (_SIDE_PX, _SIDE_PX)
    )
