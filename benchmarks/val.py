"""`qanet val`: the accuracy of a bundle or a checkpoint on a data set, through the very parser that users run.

Every annotated person is parsed from their ground-truth box (box score 1) or every box of a detector from a COCO
results file, at image resolution; the metrics are `qanet.metrics`', which suppress duplicates by themselves. Void
pixels count for nothing.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qanet.bundle import Bundle, open_bundle
from qanet.commandline import command_parser, emit, note, table
from qanet.cpu import cpu_features
from qanet.datasets import DATA_FORMATS, default_split, open_dataset, read_detections
from qanet.errors import QanetError
from qanet.metrics import PROTOCOLS
from qanet.runtime.engines.base import graph_name
from qanet.runtime.evaluate import ANNOTATION, choose_tags, evaluate, is_synthetic, plain
from qanet.runtime.parser import load


def _arguments() -> argparse.ArgumentParser:
    parser = command_parser("val", "Accuracy of a bundle or a .safetensors checkpoint on a data set.")
    parser.add_argument("model", metavar="BUNDLE_OR_CHECKPOINT")
    parser.add_argument("--data", required=True, metavar="DIR")
    parser.add_argument("--format", default="ccp", choices=DATA_FORMATS)
    parser.add_argument("--split", metavar="NAME", help="default: val; a ccp folder without val.txt is taken whole")
    parser.add_argument("--boxes", metavar="FILE.json", help="COCO results of a detector; default: the ground truth's")
    parser.add_argument("--precision", default="fp32", help="fp32, fp16, int8, or auto (fp32)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, onnxruntime")
    parser.add_argument("--tail", default="kernel", choices=("kernel", "graph"))
    parser.add_argument("--protocol", default="official", choices=tuple(PROTOCOLS))
    parser.add_argument("--weights", type=_numbers, metavar="A,B,G", help="QAM exponents; default: the bundle's")
    parser.add_argument("--flip", action="store_true", help="average each crop with its mirror image")
    parser.add_argument("--scales", type=_numbers, default=(1.0,), metavar="1,1.1", help="average boxes of these sizes")
    parser.add_argument(
        "--tags", metavar="annotation|JSON", help="only these classes can win: the annotation's own, or ids by image"
    )
    parser.add_argument("--threads", type=int)
    parser.add_argument("--save", action="store_true", help="write the numbers into the bundle's manifest as its card")
    return parser


def _numbers(text: str) -> tuple[float, ...]:
    """argparse type: numbers between commas."""
    return tuple(float(word) for word in text.split(","))


def main(argv: Sequence[str]) -> int:
    """Entry point."""
    args = _arguments().parse_args(argv)
    if args.weights is not None and (len(args.weights) != 3 or sum(args.weights) <= 0 or min(args.weights) < 0):
        raise QanetError("bad --weights", expected="three exponents such as 1,0.5,3", got=args.weights)
    if args.save and (args.boxes or args.weights or args.flip or args.scales != (1.0,) or args.tags):
        raise QanetError(
            "a card holds the plain numbers",
            expected="--save without --boxes, --weights, --flip, --scales and --tags",
            got="one of them",
        )
    if args.tags and args.tail != "kernel":
        raise QanetError("--tags wants the kernel tail", expected="--tail kernel", got=args.tail)
    with tempfile.TemporaryDirectory() as folder:
        path: Path = Path(args.model)
        if path.suffix == ".safetensors":
            from qanet.export.command import bundle_of_checkpoint  # imports torch

            note("exporting the checkpoint first: what is measured is the graph")
            path = bundle_of_checkpoint(path, Path(folder) / f"{path.stem}.qanet").path
        bundle = open_bundle(str(path))
        document = _measure(args, bundle)
        if args.save:
            save_card(bundle, document["graph"], document)
    emit(args.json, document, val_text(document, bundle))
    return 0


def _measure(args: argparse.Namespace, bundle: Bundle) -> dict[str, Any]:
    """The document of `qanet val --json`."""
    split = args.split or default_split(args.data, args.format)
    data = open_dataset(args.data, args.format, bundle.labels, split)
    detected = read_detections(args.boxes, data.image_ids) if args.boxes else None
    tags = choose_tags(args.tags, bundle.labels) if args.tags else None
    parser = load(
        bundle.path, args.device, args.precision, args.tail, threads=args.threads, flip=args.flip, scales=args.scales
    )
    from tqdm import tqdm

    with tqdm(total=len(data.image_names), unit="image", desc="val", disable=args.json or None) as bar:
        report = evaluate(parser, data, args.protocol, lambda: bar.update() and None, detected, args.weights, tags=tags)
    return {
        "model": str(args.model),
        "runtime": parser.engine.runtime,
        "precision": parser.engine.precision,
        "graph": graph_name(parser.engine),
        "cpu": ", ".join(cpu_features()),
        "tail": args.tail,
        "data": Path(args.data).resolve().name,
        "format": args.format,
        "split": split,
        "boxes": Path(args.boxes).name if args.boxes else "ground truth",
        "flip": args.flip,
        "scales": list(args.scales),
        "tags": args.tags,
        "synthetic": is_synthetic(Path(args.data)),
        **plain(report),
    }


SHOWN = (
    ("miou", "mIoU"),
    ("pixel_accuracy", "pixel accuracy"),
    ("mean_accuracy", "mean accuracy"),
    ("ap_p", "AP^p"),
    ("ap_p_50", "AP^p 50"),
    ("pcp_50", "PCP 50"),
    ("ap_r", "AP^r"),
    ("ap_r_50", "AP^r 50"),
    ("rank_correlation_quality", "rank correlation of Q with the true IoU"),
    ("ece_quality", "calibration error of Q"),
)
_FORMAT_SHOWN = {  # what the sets' own papers and challenges measure
    "ccp": (("mean_recall", "mean recognition rate (recall over the classes present)"),),
    "celebamask": (
        ("image_f_measure", "F-measure, mean over each image's annotated classes, then over the images"),
        ("mean_f_measure_foreground", "mean F-measure (foreground classes present, pixels of all images)"),
    ),
}
_CARD = ("images", "protocol", "runtime", "tail", "data", "split", "boxes", "cpu")


def save_card(bundle: Bundle, graph: str, document: dict[str, Any]) -> None:
    """Write the shown numbers of a graph ("fp32", "int8", "int8-no-vnni") into the bundle's manifest."""
    keys = [*(key for key, _ in SHOWN), *_CARD]
    card = {key: document[key] for key in keys if key in document}
    bundle.manifest["accuracy"][graph] = {k: round(v, 5) if isinstance(v, float) else v for k, v in card.items()}
    bundle.save()


def val_text(document: dict[str, Any], bundle: Bundle) -> str:
    """The document for a reader: what was measured, the metrics, the classes."""
    shown = (*SHOWN, *_FORMAT_SHOWN.get(document["format"], ()))
    rows: list[tuple[object, ...]] = [(name, _percent(document.get(key), "undefined")) for key, name in shown]
    parts = [None, *(line[_HALF] for line in document["ap_r_per_class"])]  # the background has no regions
    classes: list[tuple[object, ...]] = [
        (
            name,
            _percent(document["iou"][i]),
            _percent(document["accuracy"][i]),
            _percent(document["f_measure"][i]),
            _percent(parts[i], "-"),
        )
        for i, name in enumerate(bundle.labels.classes)
    ]
    header = ("class", "IoU x 100", "recall x 100", "F x 100", "AP^r 50 x 100")
    return "\n\n".join([_head(document), table(rows, ("metric", "x 100")), table(classes, header)])


_HALF = 4  # the column of IoU 0.5 among the thresholds 0.1 .. 0.9


def _head(document: dict[str, Any]) -> str:
    looks = [*(["flip"] if document["flip"] else [])]
    if document["scales"] != [1.0]:
        looks.append("scales " + " ".join(f"{s:g}" for s in document["scales"]))
    if tags := document["tags"]:
        looks.append("TAGS OF THE ANNOTATION GIVEN" if tags == ANNOTATION else f"TAGS OF {tags} GIVEN")
    boxes = "ground-truth boxes" if document["boxes"] == "ground truth" else f"boxes of {document['boxes']}"
    exponents = "QAM exponents " + " ".join(f"{w:g}" for w in document["weights"])
    synthetic = ["SYNTHETIC scenes"] if document["synthetic"] else []
    facts = [
        str(document["model"]),
        f"{document['precision']} on {document['runtime']}",
        f"{document['tail']} tail",
        *looks,
        f"protocol {document['protocol']}",
        f"{document['images']} images",
        f"{document['persons']} people",
        boxes,
        exponents,
        *synthetic,
    ]
    return ", ".join(facts)


def _percent(value: float | None, missing: str = "absent") -> str:
    return missing if value is None else f"{100 * value:.2f}"
