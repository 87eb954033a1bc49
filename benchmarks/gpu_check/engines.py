"""Engines that can be built on this machine, and the whole parser on each of them."""

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.benchmarks.gpu_check.steps import Refused, Runner, last_lines
from qanet.benchmarks.harness import summarize
from qanet.benchmarks.tail.cases import all_cases
from qanet.bundle import PRECISIONS
from qanet.runtime.detectors.base import Detections
from qanet.runtime.parser import Parser, load

RUNTIMES = ("tensorrt", "tensorrt-rtx")
_BUILD_LIMIT_S = 1800.0


def build(model: str, runtime: str, target: str, folder: Path, runner: Runner) -> dict[str, str]:
    """Engines of every precision for one runtime, each in a command of its own.

    Args:
        model: a bundle's name or path.
        runtime: of RUNTIMES.
        target: compute capability of the GPU, such as "sm_87".
        folder: where to; the bundle is `bundle_of(folder, runtime)`.
    Returns:
        Precision -> "built", or what the build said.
    Raises:
        Refused: none could be built; the text is what the first build said.
    """
    bundle, found = bundle_of(folder, runtime), {}
    for precision in PRECISIONS:
        source = str(bundle) if bundle.is_dir() else model
        command = [sys.executable, "-m", "qanet", "build", source, "--precision", precision, "--runtime", runtime]
        # RTX builds for a GPU that it is told, TensorRT for the one that is there and in buckets that become graphs.
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
