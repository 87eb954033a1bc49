"""Time and memory of the metrics on synthetic predictions.

python -m qanet.benchmarks.lab.metrics_scale --people 10000
"""

import resource
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.commandline import command_parser, emit, run_module
from qanet.errors import QanetError
from qanet.metrics import PROTOCOLS, ParsingEvaluator, Prediction, Truth

_IMAGE_HW, _PERSON_HW, _PEOPLE = (720, 1280), (300, 200), 5  # pixels, pixels, people per image
_DISTINCT = 32  # images, drawn once and evaluated in turns: drawing is not what is timed
_BLOCK_PX = 20  # side of the squares that a made-up person's classes come in
_SHIFT_PX = 8  # greatest shift of a prediction


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; exit code 0."""
    parser = command_parser("quality-scale", "Time and memory of the metrics on synthetic predictions.")
    parser.prog = "python -m qanet.benchmarks.lab.metrics_scale"
    parser.add_argument("--people", type=int, default=10_000)
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--protocol", default="official", choices=tuple(PROTOCOLS))
    args = parser.parse_args(argv)
    if args.people < 1:
        raise QanetError("bad --people", expected="1 or more", got=args.people)
    document = measure(args.people, args.classes, args.protocol)
    emit(
        args.json,
        document,
        f"{document['people']} people in {document['images']} images of {_IMAGE_HW[1]}x{_IMAGE_HW[0]}, "
        f"{args.classes} classes, {args.protocol} protocol: {document['add_s']:.1f} s for the images and "
        f"{document['report_s']:.2f} s for the report, {document['cpu_s']:.1f} s of them on a CPU; "
        f"peak resident memory {document['peak_mib']:.0f} MiB, "
        f"{document['start_mib']:.0f} MiB before the first image",
    )
    return 0


def measure(people: int, num_classes: int, protocol: str) -> dict[str, Any]:
    """Evaluate `people` predicted people; seconds by the clock and of CPU time, and peak MiB of resident memory."""
    images = list(_images(num_classes))
    evaluator = ParsingEvaluator(num_classes, protocol)
    count = -(-people // _PEOPLE)
    start_mib = _peak_mib()
    begin, cpu_begin = time.perf_counter(), time.process_time()
    for index in range(count):
        evaluator.add(*images[index % len(images)])
    added = time.perf_counter()
    report = evaluator.report()
    done, cpu_done = time.perf_counter(), time.process_time()
    return {
        "people": report["predictions"],
        "images": count,
        "classes": num_classes,
        "protocol": protocol,
        "add_s": added - begin,
        "report_s": done - added,
        "cpu_s": cpu_done - cpu_begin,
        "start_mib": start_mib,
        "peak_mib": _peak_mib(),
        "ap_p": report["ap_p"],
        "ap_r": report["ap_r"],
    }


def _images(num_classes: int) -> Iterator[tuple[Truth, list[Prediction]]]:
    rng = np.random.default_rng(0)
    for _ in range(_DISTINCT):
        category, human = np.zeros((2, *_IMAGE_HW), np.uint8)
        people = []
        for number in range(1, _PEOPLE + 1):
            labels = _person(rng, num_classes)
            y, x = (int(rng.integers(0, side - own)) for side, own in zip(_IMAGE_HW, _PERSON_HW))
            window = (slice(y, y + _PERSON_HW[0]), slice(x, x + _PERSON_HW[1]))
            np.copyto(category[window], labels, where=labels > 0)
            human[window][labels > 0] = number
            shifted = np.roll(labels, rng.integers(-_SHIFT_PX, _SHIFT_PX + 1, 2), (0, 1))
            roi = (x, y, x + _PERSON_HW[1], y + _PERSON_HW[0])
            box, iou, pixel = (float(score) for score in rng.random(3))
            people.append(Prediction(shifted, box, iou, pixel, rng.random(num_classes - 1), roi))
        yield Truth(category, human), people


def _person(rng: np.random.Generator, num_classes: int) -> NDArray[np.uint8]:
    """An oval of squares of random classes."""
    height, width = _PERSON_HW
    squares = rng.integers(1, num_classes, (height // _BLOCK_PX, width // _BLOCK_PX)).astype(np.uint8)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    return np.kron(squares, np.ones((_BLOCK_PX, _BLOCK_PX), np.uint8)) * (x**2 + y**2 < 1)


def _peak_mib() -> float:
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


if __name__ == "__main__":
    run_module(main)
