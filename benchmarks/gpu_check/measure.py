"""Measurements on a GPU: the tail and crop kernels, the builds of engines, and the whole parser on each engine.

Kernels are compared with the memory floor, and with PyTorch on the same GPU.

Times are those between two GPU events around the launches, with logits and frame on the GPU already. "cold": one call,
with the caches filled with other data before; "warm": the mean of calls in a row. The floor is the least work of any
form: logits (or the frame under the boxes) read once and labels (or crops) written once, as fast as a large copy.
"""

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet import quality
from qanet.benchmarks.gpu_check.steps import Refused, Runner, last_lines
from qanet.benchmarks.harness import summarize
from qanet.benchmarks.score_cases import Case, all_cases, difference
from qanet.bundle import PRECISIONS
from qanet.geometry import crop_boxes, crop_people
from qanet.runtime.cuda.crop import crop_launch
from qanet.runtime.cuda.gpu_context import GpuContext, Launch, Tensor, shared_context
from qanet.runtime.cuda.tail import score_people
from qanet.runtime.detectors.base import Detections
from qanet.runtime.parser import Parser, load

CROP_HW = (384, 288)
_CROPS_MAY_DIFFER = 8  # grey levels on noise: OpenCV rounds its weights to 1/32 of a pixel
_IN_A_ROW = 20
RUNTIMES = ("tensorrt", "tensorrt-rtx")
_BUILD_LIMIT_S = 1800.0


def measure(repeats: int = 50, copy_mib: int = 256) -> dict[str, Any]:
    """Everything on the first GPU: bytes per second of a copy, and a row per case and form."""
    gpu = shared_context()
    cases = [case for case in all_cases() if case.group == "people" and not case.is_smooth]
    with (
        gpu.active("measuring"),
        Tensor(gpu, "check.a", (copy_mib << 20,), np.uint8, has_host=False) as a,
        Tensor(gpu, "check.b", (copy_mib << 20,), np.uint8, has_host=False) as b,
    ):
        stream = gpu.stream.driver_stream

        def copy() -> None:
            gpu.device.driver.memcpy_dtod_async(b.address, a.address, copy_mib << 20, stream)

        bandwidth = 2 * (copy_mib << 20) / (min(_times(gpu, copy, 10)) * 1e-3)

        def flush() -> None:
            gpu.device.driver.memset_d8_async(a.address, 1, copy_mib << 20, stream)

        rows = []
        for case in cases:
            for kind in (np.float32, np.float16):
                rows.append(_tail_row(gpu, case, np.dtype(kind), bandwidth, flush, repeats))
            rows.append(_crop_row(gpu, case, bandwidth, flush, repeats))
    for case in cases:
        _compare_with_torch(case, rows, repeats)
    return {"copy_bytes_per_second": bandwidth, "rows": rows}


def _times(
    gpu: GpuContext, queue: Callable[[], None], repeats: int, before: Callable[[], None] | None = None
) -> list[float]:
    """Milliseconds on the GPU's clock of what `queue` queues; three more at first, for nothing."""
    samples = []
    for _ in range(repeats + 3):
        if before is not None:
            before()
        with gpu.stream.timed() as timing:
            queue()
        samples.append(timing.elapsed_ms)
    return samples[3:]


def _figures(
    gpu: GpuContext,
    launches: Sequence[Launch],
    floor_bytes: int,
    bandwidth: float,
    flush: Callable[[], None],
    repeats: int,
) -> dict[str, Any]:
    def once() -> None:
        for launch in launches:
            gpu.launch(launch)

    def many() -> None:
        for _ in range(_IN_A_ROW):
            once()

    cold = summarize(_times(gpu, once, repeats, flush))
    warm = summarize([sample / _IN_A_ROW for sample in _times(gpu, many, max(repeats // 5, 3))])
    floor_ms = floor_bytes / bandwidth * 1e3
    return {
        "cold_ms": cold,
        "warm_ms": warm,
        "floor_bytes": floor_bytes,
        "floor_ms": floor_ms,
        "cold_times_floor": cold["p50"] / floor_ms,
        "warm_times_floor": warm["p50"] / floor_ms,
    }


def _tail_row(
    gpu: GpuContext, case: Case, dtype: np.dtype, bandwidth: float, flush: Callable[[], None], repeats: int
) -> dict[str, Any]:
    """One form of the tail on one case; not timed where its answer is not the reference's."""
    arguments = case.arguments()
    logits = arguments["logits"].astype(dtype)
    row: dict[str, Any] = {"case": case.name, "kernel": f"tail {dtype.name}", "status": "ok", "reason": None}
    expected = quality.pixel_score(logits, arguments["boxes"], case.image_hw)
    with Tensor(gpu, "check.logits", logits.shape, dtype) as tensor:
        tensor.upload(logits)
        with score_people(gpu, tensor.first(len(logits)), arguments["boxes"], case.image_hw) as scored:
            wrong = difference(scored.download(), expected)
            if wrong is not None:
                return row | {"status": "refused", "reason": wrong}
            floor_bytes = logits.nbytes + scored.regions.nbytes
            return row | _figures(gpu, scored.launches, floor_bytes, bandwidth, flush, repeats)


def _crop_row(gpu: GpuContext, case: Case, bandwidth: float, flush: Callable[[], None], repeats: int) -> dict[str, Any]:
    row: dict[str, Any] = {"case": case.name, "kernel": "crop", "status": "ok", "reason": None}
    image = np.random.default_rng(0).integers(0, 256, (*case.image_hw, 3), np.uint8)
    boxes = crop_boxes(np.array(case.boxes, np.float32), CROP_HW)
    shape = (len(boxes), *CROP_HW, 3)
    with ExitStack() as held:
        frame, where, crops = (
            held.enter_context(Tensor(gpu, f"check.{name}", sizes, kind))
            for name, sizes, kind in (
                ("frame", image.shape, np.uint8),
                ("boxes", boxes.shape, np.float32),
                ("crops", shape, np.uint8),
            )
        )
        frame.upload(image)
        where.upload(boxes)
        launch = crop_launch(frame.first(len(image)), where.address, crops.first(len(boxes)))
        gpu.launch(launch)
        crops.download(len(boxes))
        gpu.stream.synchronize()
        off = np.abs(crops.rows(len(boxes)).astype(int) - crop_people(image, boxes, CROP_HW))
        if off.max() > _CROPS_MAY_DIFFER:
            return row | {"status": "refused", "reason": f"crops differ by {off.max()} grey levels"}
        limits = np.array([*case.image_hw[::-1], *case.image_hw[::-1]])
        x0, y0, x1, y1 = np.clip(boxes, 0, limits).T
        read = 3 * int(((x1 - x0) * (y1 - y0)).sum())
        return row | _figures(gpu, [launch], read + crops.first(len(boxes)).nbytes, bandwidth, flush, repeats)


def _compare_with_torch(case: Case, rows: list[dict[str, Any]], repeats: int) -> None:
    """Add `torch_ms` and `speed_up` (cold) to the tail's rows of a case; the reason where there is none in `torch`."""
    mine = [row for row in rows if row["case"] == case.name and row["kernel"].startswith("tail")]
    try:
        torch_ms, reason = _torch_ms(case, max(repeats // 5, 3)), None
    except Exception as error:  # not installed, without CUDA, or out of memory: the rest stands
        torch_ms, reason = None, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    for row in mine:
        row["torch_ms"], row["torch"] = torch_ms, reason
        row["speed_up"] = torch_ms / row["cold_ms"]["p50"] if torch_ms and row["status"] == "ok" else None


def _torch_ms(case: Case, repeats: int) -> float:
    """Median of the straightforward PyTorch form on the GPU, logits there before and labels left there."""
    from qanet.export import baseline

    torch = baseline.torch
    if not torch.cuda.is_available():
        raise RuntimeError(f"PyTorch {torch.__version__} has no CUDA here")
    arguments = case.arguments()
    samples = []
    with torch.inference_mode(), torch.device("cuda"):
        logits, boxes = (torch.from_numpy(arguments[name]).cuda() for name in ("logits", "boxes"))
        for _ in range(repeats + 3):
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            baseline.score(baseline.paste(baseline.probabilities(logits), boxes, case.image_hw), 0.2)
            stop.record()
            torch.cuda.synchronize()
            samples.append(start.elapsed_time(stop))
    return float(np.median(samples[3:]))


def build(model: str, runtime: str, target: str, folder: Path, runner: Runner) -> dict[str, str]:
    """Engines of every precision for one runtime, each in a command of its own.

    Args:
        model: a bundle's name or path.
        runtime: of RUNTIMES.
        target: compute capability of the GPU, such as "sm_87".
        folder: where to; the bundle is `bundle_of(folder, runtime)`.
    Returns:
        Precision -> "built", or the end of its output.
    Raises:
        Refused: none could be built; the text is the end of the first build's output.
    """
    bundle, found = bundle_of(folder, runtime), {}
    for precision in PRECISIONS:
        source = str(bundle) if bundle.is_dir() else model
        command = [sys.executable, "-m", "qanet", "build", source, "--precision", precision, "--runtime", runtime]
        # RTX builds for a given target; TensorRT for the GPU that is here, in buckets that become CUDA graphs.
        command += ["--target", target] if runtime == "tensorrt-rtx" else ["--static-buckets"]
        answer = runner([*command, "--output", str(bundle)], _BUILD_LIMIT_S)
        found[precision] = "built" if answer.code == 0 else last_lines(answer.output, 3)
    if "built" not in found.values():
        raise Refused(next(iter(found.values())))
    return found


def bundle_of(folder: Path, runtime: str) -> Path:
    """Where the engines of a runtime are built."""
    return folder / f"{runtime}.qanet"


def run_parser(bundle: str, precision: str, model: str, repeats: int = 200) -> dict[str, Any]:
    """The parser on a built engine, with one and with five people of a frame of 1080p.

    Raises:
        QanetError: no such engine, or it does not run.
    """
    image, boxes = made_up_frame()
    reference = load(model, device="cpu", precision="fp32")
    return measure_parser(load(bundle, device="cuda", precision=precision), reference, image, boxes, repeats)


def made_up_frame() -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """(1080, 1920, 3) of soft blobs and five boxes: what it shows decides nothing about the time."""
    case = next(case for case in all_cases() if case.group == "people" and len(case.boxes) == 5)
    height, width = case.image_hw
    coarse = np.random.default_rng(0).integers(0, 256, (height // 40, width // 40, 3), np.uint8)
    return coarse.repeat(40, 0).repeat(40, 1), np.array(case.boxes, np.float32)


def measure_parser(
    parser: Parser, reference: Parser, image: NDArray[np.uint8], boxes: NDArray[np.float32], repeats: int
) -> dict[str, Any]:
    """Time whole calls from a frame in host memory to people, boxes given, and compare them with another parser's.

    Returns:
        Plain data: runtime, precision, graph_batches, and per number of people latency_ms (wall clock), stages_ms
        (medians, on the GPU's clock where a stage runs there) and labels_agree, the share of the frame's pixels.
    """
    counts = sorted({1, len(boxes)})
    rows = []
    for count in counts:
        found = Detections(boxes[:count], np.ones(count, np.float32))
        for _ in range(5):  # the second run of a bucket records its graph
            people = parser.parse(image, found)
        expected = reference.parse(image, found)
        parser.times.samples_ms.clear()
        samples = []
        for _ in range(repeats):
            begin = time.perf_counter()
            parser.parse(image, found)
            samples.append((time.perf_counter() - begin) * 1e3)
        rows.append(
            {
                "people": count,
                "latency_ms": summarize(samples),
                "stages_ms": {name: float(np.median(values)) for name, values in parser.times.samples_ms.items()},
                "labels_agree": float(np.mean(people.labels == expected.labels)),
            }
        )
    engine = parser.engine
    return {
        "runtime": engine.runtime,
        "precision": engine.precision,
        "graph_batches": list(getattr(engine, "graph_batches", ())),
        "rows": rows,
    }
