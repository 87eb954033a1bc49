"""Accuracy of a bundle on a data set: `validate`, and the command `qanet val`.

What is measured is the parser that users run. Every annotated person is parsed from the ground-truth box (box score 1),
or every box of a detector from a COCO results file, at image resolution. The metrics are those of `qanet.metrics`,
which suppresses duplicates itself. Void pixels are not counted.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qanet.bundle import Bundle, open_bundle
from qanet.commandline import CommandParser, command_parser, emit, note, table
from qanet.cpu import cpu_features
from qanet.datasets import DATA_FORMATS, default_split, layout_of, open_dataset, read_detections
from qanet.errors import QanetError
from qanet.metrics import PROTOCOLS
from qanet.runtime.backends.base import graph_name
from qanet.runtime.backends.select import DEVICES
from qanet.runtime.evaluate import ANNOTATION, choose_tags, evaluate, is_synthetic, plain
from qanet.runtime.parser import TAILS, load
from qanet.scratch import scratch_folder

SHOWN = (
    ("miou", "mIoU of pictures"),
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
_HALF = 4  # the column of IoU 0.5 among the thresholds 0.1 .. 0.9


@dataclass(frozen=True)
class ValReport:
    """Accuracy of a model on a data set, and how it was measured.

    Attributes:
        graph: the bundle's graph that ran: "fp32", "int8", "int8-no-vnni", ...
        cpu: instruction sets of this CPU that decide about precision.
        boxes: "ground truth", or the file's name.
        metrics: the report of `qanet.metrics`: fractions, lists by class, None for undefined.
    """

    model: str
    runtime: str
    precision: str
    graph: str
    cpu: str
    tail: str
    data: str
    format: str
    split: str | None
    boxes: str
    flip: bool
    scales: list[float]
    tags: str | None
    synthetic: bool
    metrics: dict[str, Any]

    @property
    def miou(self) -> float | None:
        """Mean IoU over the classes, background included."""
        return self._metric("miou")

    @property
    def pixel_accuracy(self) -> float | None:
        """Share of correctly labelled pixels."""
        return self._metric("pixel_accuracy")

    @property
    def ap_p(self) -> float | None:
        """AP^p, mean over the IoU thresholds 0.1 to 0.9."""
        return self._metric("ap_p")

    @property
    def ap_r(self) -> float | None:
        """AP^r, mean over the IoU thresholds 0.1 to 0.9."""
        return self._metric("ap_r")

    def _metric(self, name: str) -> float | None:
        value = self.metrics.get(name)
        return None if value is None else float(value)

    def to_json(self) -> dict[str, Any]:
        """The document of `qanet val --json`: settings and metrics side by side."""
        document = dict(vars(self))
        return {**document, **document.pop("metrics")}

    def card(self) -> dict[str, Any]:
        """The accuracy card that a bundle keeps of it."""
        document = self.to_json()
        keys = [key for key in [*(key for key, _ in SHOWN), *_CARD] if key in document]
        return {k: round(v, 5) if isinstance(v := document[k], float) else v for k in keys}

    def __str__(self) -> str:
        return ", ".join(_settings(self))


def validate(
    model: Bundle | str | Path,
    data: str | Path,
    *,
    format: str | None = None,
    split: str | None = None,
    boxes: str | Path | None = None,
    precision: str = "fp32",
    device: str = "auto",
    tail: str = "kernel",
    protocol: str = "official",
    weights: Sequence[float] | None = None,
    flip: bool = False,
    scales: Sequence[float] = (1.0,),
    tags: str | None = None,
    threads: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ValReport:
    """Measure the accuracy of a bundle on a data set.

    Args:
        model: a bundle, its path, or the name of a shipped one.
        data: folder of the data set.
        format: of the data set, one of DATA_FORMATS; None: by what lies in the folder.
        split: None: "val"; a ccp folder without val.txt is taken whole.
        boxes: COCO results of a detector; None: the ground truth's boxes.
        precision, device, tail, threads, flip, scales: as `qanet.load` takes them.
        protocol: "official" (metrics as the published code computes them) or "strict" (without its mistakes).
        weights: QAM exponents of box, IoU and pixel score; None: the bundle's.
        tags: restrict each image to its tagged classes: "annotation" (of the annotation itself), or a JSON file.
        progress: called after each image with the number of images done, and of all.
    Raises:
        QanetError: an argument out of range, or a model, data set or file that cannot be had.
    """
    if weights is not None and (len(weights) != 3 or sum(weights) <= 0 or min(weights) < 0):
        raise QanetError("bad --weights", expected="three exponents such as 1,0.5,3", got=weights)
    if tags and tail != "kernel":
        raise QanetError("--tags needs the kernel tail", expected="--tail kernel", got=tail)
    bundle = model if isinstance(model, Bundle) else open_bundle(model)
    format = layout_of(data, format)
    split = split or default_split(data, format)
    images = open_dataset(data, format, bundle.labels, split)
    detected = read_detections(boxes, images.image_ids) if boxes else None
    allowed = choose_tags(tags, bundle.labels) if tags else None
    parser = load(bundle.path, device, precision, tail, threads=threads, flip=flip, scales=scales)
    done, total = 0, len(images.image_names)

    def step() -> None:
        nonlocal done
        done += 1
        progress(done, total)

    exponents = None if weights is None else (weights[0], weights[1], weights[2])
    metrics = evaluate(parser, images, protocol, step, detected, exponents, tags=allowed)
    return ValReport(
        model=str(bundle.path),
        runtime=parser.engine.runtime,
        precision=parser.engine.precision,
        graph=graph_name(parser.engine),
        cpu=", ".join(cpu_features()),
        tail=tail,
        data=Path(data).resolve().name,
        format=format,
        split=split,
        boxes=Path(boxes).name if boxes else "ground truth",
        flip=flip,
        scales=list(scales),
        tags=tags,
        synthetic=is_synthetic(Path(data)),
        metrics=plain(metrics),
    )


def save_card(bundle: Bundle, report: ValReport) -> None:
    """Write a report into the bundle's manifest, as the accuracy card of the graph that ran."""
    bundle.manifest["accuracy"][report.graph] = report.card()
    bundle.save()


def val_text(report: ValReport, classes: Sequence[str]) -> str:
    """The report for the terminal: settings, metrics, classes."""
    metrics = report.metrics
    shown = (*SHOWN, *_FORMAT_SHOWN.get(report.format, ()))
    absent = f"{metrics['classes_absent']:.0f} of {len(classes)} classes absent from the data"
    if metrics["classes_absent"]:
        absent += ", counted as 0" if metrics["protocol"] == "official" else ", counted where predicted"
    rows: list[tuple[object, ...]] = [
        (f"{name} ({absent})" if key == "miou" else name, _percent(metrics.get(key), "undefined"))
        for key, name in shown
    ]
    parts = [None, *(line[_HALF] for line in metrics["ap_r_per_class"])]  # the background has no regions
    by_class: list[tuple[object, ...]] = [
        (
            name,
            _percent(metrics["iou"][i]),
            _percent(metrics["accuracy"][i]),
            _percent(metrics["f_measure"][i]),
            _percent(parts[i], "-"),
        )
        for i, name in enumerate(classes)
    ]
    header = ("class", "IoU x 100", "recall x 100", "F x 100", "AP^r 50 x 100")
    return "\n\n".join([str(report), table(rows, ("metric", "x 100")), table(by_class, header)])


def _settings(report: ValReport) -> list[str]:
    metrics = report.metrics
    looks = ["flip"] if report.flip else []
    if report.scales != [1.0]:
        looks.append("scales " + " ".join(f"{s:g}" for s in report.scales))
    if report.tags:
        source = "THE ANNOTATION" if report.tags == ANNOTATION else report.tags
        looks.append(f"TAGS OF {source} GIVEN")
    return [
        report.model,
        f"{report.precision} on {report.runtime}",
        f"{report.tail} tail",
        *looks,
        f"protocol {metrics['protocol']}",
        f"{metrics['images']} images",
        f"{metrics['persons']} people",
        "ground-truth boxes" if report.boxes == "ground truth" else f"boxes of {report.boxes}",
        "QAM exponents " + " ".join(f"{w:g}" for w in metrics["weights"]),
        *(["SYNTHETIC scenes"] if report.synthetic else []),
    ]


def _percent(value: float | None, missing: str = "absent") -> str:
    return missing if value is None else f"{100 * value:.2f}"


def main(argv: Sequence[str]) -> int:
    """Entry point."""
    args = _parser().parse_args(argv)
    if args.suite:
        return _judge_real(args)
    if len(args.data) > 1:
        raise QanetError("more than one --data", expected="one data set without --suite", got=args.data)
    if args.save and (args.boxes or args.weights or args.flip or args.scales != (1.0,) or args.tags):
        raise QanetError(
            "an accuracy card holds numbers of the plain parser",
            expected="--save without --boxes, --weights, --flip, --scales and --tags",
            got="one of them",
        )
    from tqdm import tqdm

    with scratch_folder() as folder:
        bundle = _open(Path(args.model), folder)
        with tqdm(unit="image", desc="val", disable=args.json or None) as bar:

            def progress(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            report = validate(
                bundle,
                args.data[0],
                format=args.format,
                split=args.split,
                boxes=args.boxes,
                precision=args.precision,
                device=args.device,
                tail=args.tail,
                protocol=args.protocol,
                weights=args.weights,
                flip=args.flip,
                scales=args.scales,
                tags=args.tags,
                threads=args.threads,
                progress=progress,
            )
        if args.save:
            save_card(bundle, report)
    report = replace(report, model=args.model)
    emit(args.json, report.to_json(), val_text(report, bundle.labels.classes))
    return 0


def _judge_real(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from qanet.benchmarks.real import LEAST_SCORE, judge_real, open_for_ranking
    from qanet.benchmarks.report.real import real_text, write_real
    from qanet.runtime.detectors.open import DEFAULT, SCORE_THRESHOLD

    name = args.detector or DEFAULT
    detector = open_for_ranking(name, "auto", args.threads, SCORE_THRESHOLD)
    ranking = open_for_ranking(name, "auto", args.threads, LEAST_SCORE)
    options = {"threads": args.threads, "flip": args.flip, "scales": args.scales}
    parser = load(args.model, args.device, args.precision, args.tail, **options)
    with tqdm(unit="photograph", desc="val", disable=args.json or None) as bar:
        report = judge_real(parser, detector, ranking, [Path(p) for p in args.data], lambda name: bar.update())
    if args.output:
        note(f"wrote {', '.join(str(p) for p in write_real(args.output, report, parser.bundle.labels))}")
    emit(args.json, report.to_json(), real_text(report))
    return 0


def _open(path: Path, folder: Path) -> Bundle:
    """A bundle; of a checkpoint, one with its graph in `folder`."""
    if path.suffix != ".safetensors":
        return open_bundle(str(path))
    from qanet.export.command import export_checkpoint  # imports torch

    note("exporting the checkpoint first: what is measured is the graph")
    return open_bundle(str(export_checkpoint(path, folder / f"{path.stem}.qanet").path))


def _numbers(text: str) -> tuple[float, ...]:
    """argparse type: numbers between commas."""
    return tuple(float(word) for word in text.split(","))


def _parser() -> CommandParser:
    parser = command_parser("val", "Measure the accuracy of a bundle or a .safetensors checkpoint on a data set.")
    parser.add_argument(
        "model", metavar="BUNDLE_OR_CHECKPOINT", help="a bundle's name or folder, or a .safetensors file"
    )
    parser.add_argument(
        "--data", required=True, action="append", metavar="DIR", help="folder of the data set; repeatable with --suite"
    )
    parser.add_argument(
        "--suite",
        choices=("real",),
        help="real: the detector on boxed photographs, the whole pipeline on CIHP's, the parser on CCP's val; folders "
        "of DIR with persons.json, Category_ids/ or val.txt; takes --detector, --precision, --device, --tail, --flip, "
        "--scales, --threads and --output",
    )
    parser.add_argument("--detector", metavar="NAME", help="of --suite: a bundle or an ONNX file (person-lite0)")
    parser.add_argument("--output", type=Path, metavar="DIR", help="of --suite: report.html and pictures of the worst")
    parser.add_argument(
        "--format",
        choices=DATA_FORMATS,
        metavar="NAME",
        help=f"of the data set: {', '.join(DATA_FORMATS)} (default: by what lies in the folder)",
    )
    parser.add_argument("--split", metavar="NAME", help="default: val; a ccp folder without val.txt is taken whole")
    parser.add_argument("--boxes", metavar="FILE.json", help="COCO results of a detector (default: ground-truth boxes)")
    parser.add_argument("--precision", default="fp32", help="a precision of the bundle, or auto (default: fp32)")
    parser.add_argument("--device", default="auto", help=f"{', '.join(DEVICES)} (default: auto)")
    parser.add_argument(
        "--tail",
        default="kernel",
        choices=TAILS,
        help="kernel: labels at image resolution (default); graph: at crop resolution, inside the network",
    )
    parser.add_argument(
        "--protocol",
        default="official",
        choices=tuple(PROTOCOLS),
        help="official: metrics as the published code computes them, to compare with published numbers (default); "
        "strict: without that code's mistakes, to compare models",
    )
    parser.add_argument(
        "--weights",
        type=_numbers,
        metavar="A,B,G",
        help="QAM exponents of box, IoU and pixel score (default: the bundle's)",
    )
    parser.add_argument("--flip", action="store_true", help="average each crop with its mirror image")
    parser.add_argument(
        "--scales", type=_numbers, default=(1.0,), metavar="1,1.1", help="average boxes of these sizes (default: 1)"
    )
    parser.add_argument(
        "--tags",
        metavar="annotation|JSON",
        help="restrict each image to its tagged classes: those of the annotation, or those of a JSON file by image",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads of the engine (default: the runtime's)")
    parser.add_argument("--save", action="store_true", help="write the result into the bundle, as its accuracy card")
    return parser
