"""`python -m qanet.benchmarks.quality`: results.json, report.html, reliability diagrams as SVG, and a table."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qanet._version import __version__
from qanet.benchmarks.quality.collect import parse_images
from qanet.benchmarks.quality.page import page, reliability_charts, text
from qanet.benchmarks.quality.study import evaluate, plan
from qanet.commandline import CommandParser, command_parser, emit, run_module
from qanet.datasets import DATA_FORMATS, DataSet, default_split, open_dataset, read_detections
from qanet.errors import QanetError
from qanet.files import write_text
from qanet.metrics import PROTOCOLS
from qanet.runtime.evaluate import is_synthetic, plain
from qanet.runtime.parser import Parser, load


def _arguments() -> CommandParser:
    parser = command_parser("quality", "What box, IoU and pixel score are worth on detected boxes.")
    parser.prog = "python -m qanet.benchmarks.quality"
    parser.add_argument("bundle", metavar="BUNDLE")
    parser.add_argument("--data", required=True, metavar="DIR")
    parser.add_argument("--format", default="cihp", choices=DATA_FORMATS)
    parser.add_argument("--split", metavar="NAME", help="default: the format's part to evaluate on")
    parser.add_argument("--boxes", required=True, metavar="JSON", help="a detector's people: a COCO results file")
    parser.add_argument("--output", required=True, metavar="DIR", help="results.json, report.html, results.txt, *.svg")
    parser.add_argument("--precision", default="fp32", help="fp32, fp16 or int8")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, onnxruntime")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--protocol", default="official", choices=tuple(PROTOCOLS), help="of the grid and the sweep")
    parser.add_argument("--flip", action="store_true", help="average each crop with its mirror image")
    parser.add_argument("--scales", default="1", help="comma-separated factors of the box, averaged (1)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; exit code 0."""
    args = _arguments().parse_args(argv)
    scales = [_number(word) for word in args.scales.split(",")]
    parser = load(args.bundle, args.device, args.precision, threads=args.threads, flip=args.flip, scales=scales)
    split = args.split or default_split(args.data, args.format)
    data = open_dataset(args.data, args.format, split=split, labels=parser.bundle.labels)
    document = {
        "bundle": parser.bundle.name,
        "precision": parser.engine.precision,
        "runtime": parser.engine.runtime,
        "views": parser.augmentation.views,
        "flip": args.flip,
        "scales": scales,
        "data": Path(args.data).resolve().name,
        "format": args.format,
        "split": split,
        "boxes": Path(args.boxes).name,
        "protocol": args.protocol,
        "synthetic": is_synthetic(Path(args.data)),
        "qanet_edge": __version__,
    } | study(parser, data, Path(args.boxes), args.protocol, quiet=args.json)
    words = text(document)
    written = write_study(Path(args.output), document, words)
    emit(args.json, document, f"{words}\n\nwrote {', '.join(str(path) for path in written[:3])}")
    return 0


def study(parser: Parser, data: DataSet, boxes: Path, protocol: str, quiet: bool = True) -> dict[str, Any]:
    """Parse every box of a data set and evaluate every setting; the document of `evaluate`."""
    from tqdm import tqdm

    chosen = plan(parser.bundle.threshold, protocol)
    detected = read_detections(boxes, data.image_ids)
    images = tqdm(
        parse_images(parser, data.images(detected), chosen.thresholds, chosen.base),
        total=len(data.image_ids),
        unit="image",
        desc="quality",
        disable=quiet or None,
    )
    return evaluate(images, parser.bundle.labels.num_classes, chosen)


def write_study(folder: Path, document: dict[str, Any], words: str) -> list[Path]:
    """Write the study's files, each whole or not at all; their paths, the page first."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "report.html": page(document),
        "results.txt": words + "\n",
        "results.json": json.dumps(plain(document), indent=1, allow_nan=False) + "\n",
    }
    files |= {f"{stem}.svg": f"{drawn}\n" for stem, drawn in reliability_charts(document).items()}
    for name, content in files.items():
        write_text(folder / name, content)
    return [folder / name for name in files]


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError as error:
        raise QanetError("bad --scales", expected="numbers like 1,0.9,1.1", got=word) from error


if __name__ == "__main__":
    run_module(main)
