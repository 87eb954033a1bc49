"""`qanet val`: the accuracy of a bundle or a checkpoint on a data set, through the very parser that users run.

Every annotated person is parsed from their ground-truth box (box score 1), at image resolution; the metrics are
`qanet.metrics`'. Void pixels count for nothing.
"""

import argparse
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qanet.bundle import Bundle, open_bundle
from qanet.cli.commandline import command_parser, emit, note, table
from qanet.datasets import DATA_FORMATS, PhotoFolder, Sample
from qanet.errors import QanetError
from qanet.metrics import PROTOCOLS, ParsingEvaluator, Prediction, Truth
from qanet.results import ParsingResult
from qanet.runtime.parser import Parser, load

_SHOWN = (
    ("miou", "mIoU"), ("pixel_accuracy", "pixel accuracy"), ("mean_accuracy", "mean accuracy"), ("ap_p", "AP^p"),
    ("ap_p_50", "AP^p 50"), ("pcp_50", "PCP 50"), ("ap_r", "AP^r"), ("ap_r_50", "AP^r 50"),
    ("rank_correlation_quality", "rank correlation of Q with the true IoU"), ("ece_quality", "calibration error of Q"),
)  # fmt: skip


def truth_of(sample: Sample) -> Truth:
    """A sample's ground truth: one person, wherever a label or void is."""
    return Truth(sample.labels, (sample.labels != 0).astype(np.uint8))


def predictions_of(result: ParsingResult) -> list[Prediction]:
    """A parser's people as the metrics take them."""
    return [Prediction(p.labels, p.box_score, p.iou_score, p.pixel_score, p.part_scores, p.roi) for p in result.people]


def evaluate(
    parser: Parser, data: PhotoFolder, protocol: str, progress: Callable[[], None] | None = None
) -> dict[str, Any]:
    """The report of `qanet.metrics` for a parser on a data set."""
    bundle = parser.bundle
    if data.label_set.num_classes != bundle.labels.num_classes:
        raise QanetError("data and model have different classes", expected=bundle.labels.name, got=data.label_set.name)
    evaluator = ParsingEvaluator(bundle.labels.num_classes, protocol, bundle.qam_weights)
    for sample in _samples(data):
        evaluator.add(truth_of(sample), predictions_of(parser(sample.image, boxes=sample.box[None])))
        if progress:
            progress()
    return evaluator.report()


def _samples(data: PhotoFolder) -> Iterator[Sample]:
    for index in range(len(data)):
        yield data[index]


def plain(value: Any) -> Any:
    """A report as JSON takes it: lists for arrays, null for what is undefined."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _arguments() -> argparse.ArgumentParser:
    parser = command_parser("val", "Accuracy of a bundle or a .safetensors checkpoint on a data set.")
    parser.add_argument("model", metavar="BUNDLE_OR_CHECKPOINT")
    parser.add_argument("--data", required=True, metavar="DIR")
    parser.add_argument("--format", default="ccp", choices=DATA_FORMATS)
    parser.add_argument("--split", metavar="NAME", help="default: val where DIR/val.txt exists, else the whole folder")
    parser.add_argument("--precision", default="fp32", help="fp32, fp16 or int8")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, onnxruntime")
    parser.add_argument("--tail", default="kernel", choices=("kernel", "graph"))
    parser.add_argument("--protocol", default="official", choices=tuple(PROTOCOLS))
    parser.add_argument("--threads", type=int)
    parser.add_argument("--save", action="store_true", help="write the numbers into the bundle's manifest as its card")
    return parser


def main(argv: Sequence[str], *, open_checkpoint: Callable[..., Bundle]) -> int:
    """Entry point; `open_checkpoint` is qanet.export.command.bundle_of_checkpoint, from the command table."""
    args = _arguments().parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        path: Path = Path(args.model)
        if path.suffix == ".safetensors":
            note("exporting the checkpoint first: what is measured is the graph")
            path = open_checkpoint(path, Path(folder) / f"{path.stem}.qanet").path
        bundle = open_bundle(str(path))
        split = args.split or ("val" if (Path(args.data) / "val.txt").exists() else None)
        data = PhotoFolder(args.data, bundle.labels, split)
        parser = load(bundle.path, args.device, args.precision, args.tail, threads=args.threads)
        from tqdm import tqdm

        with tqdm(total=len(data), unit="image", desc="val", disable=args.json or None) as bar:
            report = evaluate(parser, data, args.protocol, lambda: bar.update() and None)
        document = {
            "model": str(args.model), "runtime": parser.engine.runtime, "precision": args.precision, "tail": args.tail,
            "data": Path(args.data).name, "split": split, "boxes": "ground truth", **plain(report),
        }  # fmt: skip
        if args.save:
            _save(bundle, args.precision, document)
    emit(args.json, document, _text(document, bundle))
    return 0


def _save(bundle: Bundle, precision: str, document: dict[str, Any]) -> None:
    keys = [key for key, _ in _SHOWN] + ["images", "protocol", "runtime", "tail", "data", "split", "boxes"]
    card = {key: document[key] for key in keys if key in document}
    bundle.manifest["accuracy"][precision] = {k: round(v, 5) if isinstance(v, float) else v for k, v in card.items()}
    bundle.save()


def _text(document: dict[str, Any], bundle: Bundle) -> str:
    rows: list[tuple[object, ...]] = []
    for key, name in _SHOWN:
        value = document.get(key)
        rows.append((name, "undefined" if value is None else f"{100 * value:.2f}"))
    classes = [
        (name, "absent" if iou is None else f"{100 * iou:.2f}")
        for name, iou in zip(bundle.labels.classes, document["iou"])
    ]
    head = (
        f"{document['model']}, {document['precision']} on {document['runtime']}, {document['tail']} tail, "
        f"protocol {document['protocol']}, {document['images']} images, ground-truth boxes"
    )
    return "\n\n".join([head, table(rows, ("metric", "x 100")), table(classes, ("class", "IoU x 100"))])
