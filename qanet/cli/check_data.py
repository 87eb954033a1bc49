"""`qanet check`: decode every file of a data set, list the broken ones, count people and classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qanet.commandline import command_parser, emit, table
from qanet.datasets import DATA_FORMATS, layout_of, own_labels, splits_of
from qanet.datasets.check import Findings, check_dataset, doubts
from qanet.datasets.official import LAYOUTS
from qanet.errors import QanetError
from qanet.labels import LabelSet, label_set

_SHOWN = 50  # problems in the text; --json has all


def main(argv: Sequence[str]) -> int:
    """Entry point; 2 where something is broken."""
    parser = command_parser("check", "Decode every file of a data set, list the broken ones, count people and classes.")
    parser.add_argument("data", metavar="DIR", help="folder of the data set")
    parser.add_argument(
        "--format", choices=DATA_FORMATS, help="layout of the folder (default: what lies in it; ccp in doubt)"
    )
    parser.add_argument("--split", metavar="NAME", help="split to check (default: every split of the folder)")
    parser.add_argument(
        "--labels", metavar="NAME|FILE", help="a built-in label set, or a JSON or YAML file (default: the folder's own)"
    )
    args = parser.parse_args(argv)
    report = checked(args.data, args.format, args.labels, args.split, quiet=args.json)
    emit(args.json, document_of(report), text_of(report))
    if report.found.problems:
        got = f"{len(report.found.problems)} problems, above"
        raise QanetError(f"{args.data} is broken", expected="no problem", got=got)
    return 0


@dataclass(frozen=True)
class CheckReport:
    """What was found in a data set, and what was looked at."""

    data: str
    format: str
    labels: LabelSet
    splits: list[str | None]
    found: Findings


def checked(
    data: str | Path, format: str | None, labels: str | None = None, split: str | None = None, quiet: bool = False
) -> CheckReport:
    """Look at every file of a data set, then at its counts as a whole; a progress bar on stderr unless `quiet`."""
    layout = layout_of(data, format)
    chosen = label_set(labels) if labels else own_labels(layout, data)
    splits: list[str | None] = [split] if split else _splits(str(data), layout)
    found = Findings(chosen.num_classes)
    for name in splits:
        found.add(_check(str(data), layout, chosen, name, quiet))
    problems, remarks = doubts(found, chosen)
    found.problems += problems
    found.remarks += remarks
    return CheckReport(str(data), layout, chosen, splits, found)


def _splits(data: str, format: str) -> list[str | None]:
    """Every split of the folder: by the layout, or train.txt, val.txt and test.txt; else [None], the whole folder."""
    there = splits_of(data, format)
    if format in LAYOUTS:
        there = tuple(dict.fromkeys(LAYOUTS[format].split(name) for name in there))
        if not there:
            raise QanetError(f"{data} has no split", expected="annotations and the images' folders", got="none")
        return list(there)
    return [name for name in ("train", "val", "test") if name in there] or [None]


def _check(data: str, format: str, labels: LabelSet, split: str | None, quiet: bool) -> Findings:
    """The findings of one split; a progress bar on stderr unless `quiet`."""
    from tqdm import tqdm

    with tqdm(unit="image", desc=f"check {split or ''}".rstrip(), disable=quiet or None) as bar:

        def progress(done: int, count: int) -> None:
            bar.total = count
            bar.update(done - bar.n)

        return check_dataset(data, format, labels, split, progress)


def document_of(report: CheckReport) -> dict[str, Any]:
    """The document of --json."""
    found, labels = report.found, report.labels
    return {
        "data": report.data,
        "format": report.format,
        "splits": report.splits,
        "whole": not found.problems,
        "problems": found.problems,
        "remarks": found.remarks,
        "images": found.images,
        "people": found.people,
        "labels": labels.name,
        "void_pixels": found.void_pixels,
        "classes": [
            {"name": name, "pixels": int(pixels), "images": int(images)}
            for name, pixels, images in zip(labels.classes, found.pixels, found.images_with)
        ],
    }


def text_of(report: CheckReport) -> str:
    """Counts by class, problems and remarks."""
    found, labels, splits = report.found, report.labels, report.splits
    total = max(int(found.pixels.sum()) + found.void_pixels, 1)
    rows: list[tuple[object, ...]] = [
        (name, f"{100 * pixels / total:.3f}", int(pixels), int(images))
        for name, pixels, images in zip(labels.classes, found.pixels, found.images_with)
    ]
    rows.append(("(void)", f"{100 * found.void_pixels / total:.3f}", found.void_pixels, "-"))
    parts = [
        f"{', '.join(s or 'all' for s in splits)}: {found.images} images, {found.people} people, {labels.name}",
        table(rows, ("class", "% of pixels", "pixels", "images")),
    ]
    for title, lines in (("problems", found.problems), ("remarks", found.remarks)):
        more = [f"... and {len(lines) - _SHOWN} more; --json has all"] if len(lines) > _SHOWN else []
        parts.append("\n  ".join([f"{len(lines)} {title}", *lines[:_SHOWN], *more]))
    return "\n\n".join(parts)
