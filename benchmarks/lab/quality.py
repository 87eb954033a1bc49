"""What box, IoU and pixel score are worth on detected boxes that are jittered, doubled and spurious.

    python -m qanet.benchmarks.lab.quality NAME.qanet --data scenes --format cihp --boxes detections.json --output study

Writes results.json, results.txt, report.html, and the reliability diagrams as SVG.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from qanet._version import __version__
from qanet.benchmarks.lab.quality_study import CLAIMED_AP_R_GAIN, GRID_IOU, GRID_PIXEL, evaluate, parse_images, plan
from qanet.commandline import CommandParser, command_parser, emit, run_module, table
from qanet.datasets import DATA_FORMATS, DataSet, default_split, open_dataset, read_detections
from qanet.errors import QanetError
from qanet.files import write_text
from qanet.metrics import PROTOCOLS
from qanet.pages.charts import Curve, curves, reliability_diagram
from qanet.pages.render import render
from qanet.pages.svg import COLOURS
from qanet.runtime.evaluate import is_synthetic, plain
from qanet.runtime.parser import Parser, load

_TEMPLATE = Path(__file__).with_name("quality.html.j2")
_NAMES = {
    "ap_p": "AP^p",
    "ap_p_50": "AP^p 50",
    "pcp_50": "PCP 50",
    "ap_r": "AP^r",
    "ap_r_50": "AP^r 50",
    "rank_correlation_quality": "rank corr. people",
    "rank_correlation_part_quality": "rank corr. parts",
    "ece_quality": "ECE people",
    "ece_part_quality": "ECE parts",
}
_SCORES = {"box": "box score", "iou": "IoU score", "pixel": "pixel score", "quality": "Q"}
_FRACTIONS = ("ap_p", "ap_p_50", "pcp_50", "ap_r", "ap_r_50")


def verdict(document: dict[str, Any]) -> list[str]:
    """A sentence per protocol: the gain of QAM in AP^r, and whether it is what the paper claims."""
    lines = []
    for gain in document["gains"]:
        word = "reproduced" if gain["reproduced"] else "not reproduced"
        low, high = (100 * end for end in gain["ap_r_interval"])
        lines.append(
            f"{gain['protocol']} protocol: QAM over the box score alone gives {100 * gain['ap_r']:+.2f} AP^r "
            f"(95 % of resampled images {low:+.2f} to {high:+.2f}; {100 * gain['ap_r_50']:+.2f} at 50) and "
            f"{100 * gain['ap_p']:+.2f} AP^p; the claim of more than +{100 * CLAIMED_AP_R_GAIN:.0f} AP^r is {word} here"
        )
    return lines


def headline(document: dict[str, Any]) -> str:
    """The model and the data, in one line."""
    kind = "synthetic scenes" if document["synthetic"] else "images"
    views = f", {document['views']} views per person" if document["views"] > 1 else ""
    return (
        f"{document['bundle']} ({document['precision']}, {document['runtime']}{views}) on {document['images']} {kind} "
        f"of {document['data']}: {document['persons']} people, {document['predictions']} boxes ({document['boxes']})"
    )


def text(document: dict[str, Any]) -> str:
    """The tables for a terminal: metrics x 100, correlations and errors as they are."""
    blocks = [headline(document)]
    for protocol in PROTOCOLS:
        rows = _main_rows(document, protocol)
        blocks.append(f"{protocol} protocol\n" + table(rows, ("scores", "a, b, g", *_NAMES.values())))
    blocks.append("\n".join(verdict(document)))
    scores = [
        (s["of"], _SCORES[s["score"]], _plain(s["rank_correlation"]), _plain(s["ece"])) for s in document["scores"]
    ]
    blocks.append(table(scores, ("of", "score", "rank corr. with the true IoU", "ECE")))
    grid = [(_exponents(row["weights"]), *_figures(row)) for row in document["grid"]]
    blocks.append(f"exponents, {document['protocol']} protocol\n" + table(grid, ("a, b, g", *_NAMES.values())))
    swept = [(f"{row['threshold']:g}", *_figures(row)) for row in document["thresholds"]]
    blocks.append(f"pixel threshold T, QAM, {document['protocol']} protocol\n" + table(swept, ("T", *_NAMES.values())))
    return "\n\n".join(blocks)


def page(document: dict[str, Any]) -> str:
    """The HTML page."""
    maps = document["maps"]["official"]
    return render(
        _TEMPLATE,
        title=f"{document['bundle']}: what each score is worth",
        headline=headline(document),
        protocol=document["protocol"],
        names=list(_NAMES.values()),
        main={protocol: _main_rows(document, protocol) for protocol in PROTOCOLS},
        verdict=verdict(document),
        reliability=[
            (drawn, f"rank correlation {_plain(entry['rank_correlation'])}, calibration error {_plain(entry['ece'])}")
            for entry, drawn in zip(document["scores"], reliability_charts(document).values())
        ],
        pixel_exponents=[f"{g:g}" for g in GRID_PIXEL],
        grids={_NAMES[key]: _grid_rows(document["grid"], key) for key in ("ap_r", "ap_p")},
        without_box=[(_exponents(row["weights"]), *_figures(row)) for row in document["grid"] if not row["weights"][0]],
        threshold_curves=[_threshold_curve(document["thresholds"], key) for key in ("ap_p", "ap_r")],
        thresholds=[(f"{row['threshold']:g}", *_figures(row)) for row in document["thresholds"]],
        about=[
            ("data", document["data"]),
            ("boxes", document["boxes"]),
            ("bundle", document["bundle"]),
            ("mIoU of the semantic map x 100", _percent(maps["miou"])),
            ("boundary mIoU x 100", _percent(maps["boundary_miou"])),
            ("views per person", document["views"]),
            ("qanet-edge", document["qanet_edge"]),
        ],
    )


def reliability_charts(document: dict[str, Any]) -> dict[str, Markup]:
    """File stem -> diagram (SVG) of each score of people and of parts."""
    drawn = {}
    for entry in document["scores"]:
        colour = COLOURS["fp32" if entry["of"] == "people" else "int8"]
        title = f"{_SCORES[entry['score']]} of {entry['of']}"
        drawn[f"reliability_{entry['of']}_{entry['score']}"] = reliability_diagram(title, entry["reliability"], colour)
    return drawn


def _main_rows(document: dict[str, Any], protocol: str) -> list[tuple[str, ...]]:
    rows = [row for row in document["main"] if row["protocol"] == protocol]
    return [(row["scores"], _exponents(row["weights"]), *_figures(row)) for row in rows]


def _grid_rows(grid: list[dict[str, Any]], key: str) -> list[tuple[str, ...]]:
    """A row per exponent of the IoU score, a column per exponent of the pixel score, the larger the darker."""
    by_weights = {tuple(row["weights"]): row[key] for row in grid}
    low, high = min(row[key] for row in grid), max(row[key] for row in grid)

    def cell(value: float) -> Markup:
        share = (value - low) / (high - low) if high > low else 0.0
        style = f"background: rgba(0, 114, 178, {0.55 * share:.2f}); padding: 2px 6px"
        return Markup('<span style="{}">{}</span>').format(style, _percent(value))

    return [(f"{b:g}", *(cell(by_weights[(1.0, b, g)]) for g in GRID_PIXEL)) for b in GRID_IOU]


def _threshold_curve(rows: list[dict[str, Any]], key: str) -> str:
    name, points = f"{_NAMES[key]} x 100", [(row["threshold"], 100 * row[key]) for row in rows]
    return curves(name, [Curve(COLOURS["fp32"], points)], "pixel threshold T", name, from_zero=False)


def _figures(row: dict[str, Any]) -> list[str]:
    return [_percent(row[key]) if key in _FRACTIONS else _plain(row[key]) for key in _NAMES]


def _exponents(weights: Sequence[float]) -> str:
    return ", ".join(f"{weight:g}" for weight in weights)


def _percent(value: float) -> str:
    return "undefined" if value != value else f"{100 * value:.2f}"


def _plain(value: float) -> str:
    return "undefined" if value != value else f"{value:.3f}"


def _arguments() -> CommandParser:
    parser = command_parser("quality", "What box, IoU and pixel score are worth on detected boxes.")
    parser.prog = "python -m qanet.benchmarks.lab.quality"
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
