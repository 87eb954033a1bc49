"""`qanet check`: decode every file of a data set, list the broken ones, count people and classes."""

from collections.abc import Sequence
from typing import Any

from qanet.commandline import command_parser, emit, table
from qanet.datasets import DATA_FORMATS, own_labels, splits_of
from qanet.datasets.check import Findings, check_dataset
from qanet.datasets.official import LAYOUTS
from qanet.errors import QanetError
from qanet.labels import LABEL_SETS, LabelSet, label_set

_SHOWN = 50  # problems in the text; --json has all


def main(argv: Sequence[str]) -> int:
    """Entry point; 2 where something is broken."""
    parser = command_parser("check", "Decode every file of a data set, list the broken ones, count people and classes.")
    parser.add_argument("data", metavar="DIR", help="folder of the data set")
    parser.add_argument("--format", default="ccp", choices=DATA_FORMATS, help="layout of the folder (default: ccp)")
    parser.add_argument("--split", metavar="NAME", help="split to check (default: every split of the folder)")
    parser.add_argument("--labels", choices=tuple(LABEL_SETS), help="label set (default: the format's own)")
    args = parser.parse_args(argv)
    labels = label_set(args.labels) if args.labels else own_labels(args.format)
    splits = [args.split] if args.split else _splits(args.data, args.format)
    found = Findings(labels.num_classes)
    for split in splits:
        found.add(_check(args.data, args.format, labels, split, quiet=args.json))
    document = {"data": args.data, "format": args.format, "splits": splits, **_document(found, labels)}
    emit(args.json, document, _text(found, labels, splits))
    if found.problems:
        raise QanetError(f"{args.data} is broken", expected="no problem", got=f"{len(found.problems)} problems, above")
    return 0


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


def _document(found: Findings, labels: LabelSet) -> dict[str, Any]:
    return {
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


def _text(found: Findings, labels: LabelSet, splits: Sequence[str | None]) -> str:
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
