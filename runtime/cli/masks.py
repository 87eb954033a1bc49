"""`qanet masks`: instance masks of people with QAM, as COCO results."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qanet.bundle import open_bundle
from qanet.coco.annotations import Document, person_category, read_annotation_file
from qanet.coco.evaluation import MaskTruth, ap_title
from qanet.coco.results import write_results
from qanet.commandline import command_parser, emit, note, output_file, table
from qanet.errors import QanetError
from qanet.paths import check_outputs
from qanet.runtime.backends.base import KERNEL_TAIL_OUTPUTS
from qanet.runtime.mask_parser import MaskParser, annotated_boxes, detected_boxes, mask_images


def main(argv: Sequence[str]) -> int:
    """Entry point."""
    from qanet.runtime.backends.select import open_engine

    parser = command_parser("masks", "Instance masks of people as COCO results, scored by QAM, and their AP.")
    parser.add_argument("model", metavar="NAME.qanet", help="bundle with labels person1")
    parser.add_argument(
        "--annotations", required=True, metavar="COCO.json", help="list of images, and ground truth for AP"
    )
    parser.add_argument("--images", required=True, metavar="DIR", help="folder of the images")
    parser.add_argument(
        "--output", required=True, type=output_file, metavar="RESULTS.json", help="- is standard output"
    )
    parser.add_argument(
        "--boxes", metavar="DETECTIONS.json", help="COCO results of a detector; default: annotated boxes"
    )
    parser.add_argument("--precision", default="fp32", help="fp32, fp16 or int8")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, onnxruntime")
    parser.add_argument("--flip", action="store_true", help="average with the mirrored crops")
    parser.add_argument("--threads", type=int)
    args = parser.parse_args(argv)
    bundle = open_bundle(args.model)
    document = read_annotation_file(Path(args.annotations))
    category = person_category(document, Path(args.annotations))
    boxes = detected_boxes(Path(args.boxes), document) if args.boxes else annotated_boxes(document, category)
    pictures = [Path(args.images) / str(image["file_name"]) for image in document["images"]]
    check_outputs([Path(args.output)], read=[args.annotations, args.boxes, *pictures], inside=[bundle.path])
    truth = truth_of_people(document, category)
    engine = open_engine(bundle, args.device, args.precision, KERNEL_TAIL_OUTPUTS, args.threads)
    masks = MaskParser(bundle, engine, args.flip)
    from tqdm import tqdm

    images = tqdm(document["images"], unit="image", desc="masks", disable=args.json or None)
    results = list(mask_images(masks, images, Path(args.images), boxes, category))
    write_results(Path(args.output), results)
    report: dict[str, Any] = {
        "output": args.output,
        "model": bundle.name,
        "precision": engine.precision,
        "runtime": engine.runtime,
        "boxes": "detected" if args.boxes else "ground truth",
        "images": len(document["images"]),
        "results": len(results),
    }
    if truth is not None:
        report |= truth.average_precision(results)
    emit(args.json, report, _text(report), args.output)
    return 0


def truth_of_people(document: Document, category: int) -> MaskTruth | None:
    """The ground truth for AP; None, with a note, if it has no people or pycocotools is not installed."""
    people = [entry for entry in document["annotations"] if entry["category_id"] == category]
    try:
        return MaskTruth({**document, "annotations": people}) if people else None
    except QanetError as error:
        note(f"no AP: {error.line()}")
        return None


def _text(report: dict[str, Any]) -> str:
    head = (
        f"wrote {report['output']}: {report['results']} masks of {report['images']} images, {report['precision']} on "
        f"{report['runtime']}, {report['boxes']} boxes"
    )
    if "ap" not in report:
        return head
    rows = [
        (ap_title(key), "undefined" if value != value else f"{100 * value:.2f}")
        for key, value in report.items()
        if key.startswith("ap")
    ]
    return f"{head}\n\n{table(rows, ('mask AP', 'x 100'))}\nnext: qanet rescore {report['output']} --weights 1,0,0"
