"""Person detectors on labelled photographs: average precision with an interval, recall, precision and time.

    python -m qanet.benchmarks.lab.detector_on_photographs yolox_nano.onnx person-lite0 --data FOLDER

FOLDER holds persons.json (COCO's form; crowds do not count) and images/. All detectors run on a photograph before the
next one, so that their times are comparable. Differences are to the first detector, over the same resampled
photographs.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from qanet.benchmarks.real import open_for_ranking, read_truth
from qanet.bundle import PRECISIONS, open_bundle
from qanet.commandline import CommandParser, emit, run_module
from qanet.errors import QanetError
from qanet.images import read_image
from qanet.metrics.detection import DetectedImage, at_threshold, average_precision, bootstrapped_precisions
from qanet.runtime.detectors.base import Detector
from qanet.runtime.detectors.open import SCORE_THRESHOLD, names_a_bundle

_INTERVAL = (2.5, 97.5)  # percentiles


@dataclass
class Judged:
    """One detector: its boxes on each photograph, and the processor time of each."""

    name: str
    images: list[DetectedImage] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)


def judge(folder: Path, detectors: Sequence[tuple[str, Detector]]) -> list[Judged]:
    """Every detector on every photograph, in turns."""
    judged = [Judged(name) for name, _ in detectors]
    for number, (file, (people, crowds)) in enumerate(read_truth(folder).items()):
        image = read_image(file)
        for one, (_, detector) in zip(judged, detectors):
            start = time.process_time()
            found = detector.detect(image, number)
            one.cpu_ms.append((time.process_time() - start) * 1e3)
            one.images.append(DetectedImage(found.boxes, found.scores, people, areas=crowds))
    return judged


def report(judged: Sequence[Judged], iou: float, threshold: float) -> list[dict[str, Any]]:
    """The numbers of each detector: "ap" with its 95% interval, "minus_first" likewise, recall, precision and time."""
    rows: list[dict[str, Any]] = []
    drawn = [bootstrapped_precisions(one.images, iou) for one in judged]
    for one, draws in zip(judged, drawn):
        recall, precision = at_threshold(one.images, threshold, iou)
        ap = average_precision(one.images, iou)
        rows.append(
            {
                "detector": one.name,
                "ap": ap,
                "interval": np.percentile(draws, _INTERVAL).tolist(),
                "iou": iou,
                "minus_first": ap - rows[0]["ap"] if rows else 0.0,
                "minus_first_interval": np.percentile(draws - drawn[0], _INTERVAL).tolist(),
                "threshold": threshold,
                "recall": recall,
                "precision": precision,
                "photographs": len(one.images),
                "people": sum(len(i.true) for i in one.images),
                "cpu_ms": float(np.median(one.cpu_ms)),
            }
        )
    return rows


def _line(row: dict[str, Any]) -> str:
    low, high = row["interval"]
    less, more = row["minus_first_interval"]
    return (
        f"{row['detector']}: AP{100 * row['iou']:.0f} {row['ap']:.3f} [{low:.3f}, {high:.3f}], "
        f"{row['minus_first']:+.3f} [{less:+.3f}, {more:+.3f}] to the first; at {row['threshold']:g}: recall "
        f"{row['recall']:.3f}, precision {row['precision']:.3f}; {row['cpu_ms']:.1f} ms of a CPU per photograph"
    )


def main(argv: Sequence[str]) -> int:
    """Entry point."""
    args = _arguments().parse_args(argv)
    if not 0 < args.iou <= 1:
        raise QanetError("bad --iou", expected="over 0, at most 1", got=args.iou)
    detectors = [(name, open_for_ranking(name, args.precision, args.threads)) for name in args.detectors]
    rows = report(judge(args.data, detectors), args.iou, SCORE_THRESHOLD)
    emit(args.json, {"data": args.data.name, "detectors": rows}, "\n".join(map(_line, rows)))
    if args.save:
        _save(args, rows[-1])
    return 0


def _arguments() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="python -m qanet.benchmarks.lab.detector_on_photographs", description=__doc__.split("\n")[0]
    )
    parser.add_argument("detectors", metavar="DETECTOR", nargs="+", help="bundles and ONNX detectors")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="persons.json and images/")
    parser.add_argument("--iou", type=float, default=0.5, help="from which on a box is found (0.5)")
    parser.add_argument("--precision", default="auto", choices=("auto", *PRECISIONS), help="of bundles")
    parser.add_argument("--threads", type=int, help="CPU threads of each detector")
    parser.add_argument("--save", action="store_true", help="add the last one's result to its bundle's accuracy")
    parser.add_argument("--json", action="store_true")
    return parser


def _save(args: argparse.Namespace, row: dict[str, Any]) -> None:
    """Average precision, recall and precision into the bundle's accuracy, by precision and folder."""
    name = args.detectors[-1]
    bundle = open_bundle(name) if names_a_bundle(name) else None
    if bundle is None or args.precision == "auto" or bundle.is_shipped:
        raise QanetError("this result cannot be saved", expected="--precision, and a bundle outside the package, last")
    card = bundle.manifest["accuracy"].setdefault(args.precision, {})
    kept = ("ap", "interval", "iou", "recall", "precision", "threshold", "photographs", "people")
    card[args.data.name] = {key: np.round(row[key], 4).tolist() for key in kept}
    bundle.save()


if __name__ == "__main__":
    run_module(main)
