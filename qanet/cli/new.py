"""`qanet new`: a folder of one's own classes from annotated photographs, ready for `qanet train`."""

import argparse
from collections.abc import Sequence

from qanet.cli.check_data import checked, document_of, text_of
from qanet.commandline import command_parser, emit, fraction, note
from qanet.datasets.importing import find_annotations
from qanet.datasets.new import ClassPlan, make_folder

_EPILOG = """\
--data is one of
  photographs and masks    images/ and masks/ (or photos/ labels/, JPEGImages/ SegmentationClass/), or NAME.jpg beside
                           NAME.png or NAME_mask.png; masks of ids (255: void) or of colours (labelmap.txt is read)
  COCO                     a .json file, or a folder that has one; polygons and RLE
  CVAT                     "CVAT for images 1.1": annotations.xml with its images
  Labelme                  a .json file beside each photograph

A class holds what has its name in the annotations, or what it lists: clothes=shirt+trousers, hair=#ff0000, hat=3+7.
Masks of ids without names follow the order of the classes.
"""


def main(argv: Sequence[str]) -> int:
    """Entry point; 2 where the data cannot be right."""
    parser = command_parser(
        "new",
        "Make a folder of your own classes from annotated photographs: label set, recipe, splits.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", metavar="NAME", help="the folder to write; its name is that of the label set")
    parser.add_argument("--classes", required=True, metavar="A,B=X+Y", help="the classes in order, see below")
    parser.add_argument("--data", required=True, metavar="DIR", help="the annotated photographs, see below")
    parser.add_argument("--void", default="", metavar="X+Y", help="names, ids or colours that are not to be learnt")
    parser.add_argument(
        "--others",
        choices=("background", "void"),
        help="what everything else becomes (default: background for shapes; masks need a class for each id or colour)",
    )
    parser.add_argument(
        "--val", type=fraction, default=0.2, metavar="SHARE", help="share of the photographs to measure on (0.2)"
    )
    args = parser.parse_args(argv)
    plan, found = ClassPlan.parse(args.classes, args.void, args.others), find_annotations(args.data)
    note(f"{args.data}: {found.form}, {len(found.pictures)} photographs, {len(found.names)} names")
    from tqdm import tqdm

    with tqdm(total=len(found.pictures), unit="photo", desc="new", disable=args.json or None) as bar:
        folder = make_folder(args.name, found, plan, val_share=args.val, progress=lambda *_: bar.update() and None)
    report = checked(folder, "folder", quiet=True)
    document = {"folder": str(folder), "form": found.form, **document_of(report)}
    emit(args.json, document, f"{text_of(report)}\n\nwrote {folder}\nnext: qanet train {folder}")
    return 0
