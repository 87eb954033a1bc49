"""`qanet rescore`: COCO or LVIS results of any Mask R-CNN, ranked again by the quality of their masks (QAM).

The score of a result becomes Q = (box^a * iou^b * pixel^g)^(1/(a+b+g)): box is the detector's score, pixel how much
of the mask is certain (`qanet.quality.probability_score`, at image resolution within the result's bbox), iou the mask
IoU that the network predicts of itself, where it does (Mask Scoring R-CNN, QANet); without it b counts as 0.

A result keeps all its keys except the map: `score` becomes Q, and `box_score` and `pixel_score` hold its factors. So it
can be rescored again, with other weights and without the probabilities.
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.coco.annotations import Document, read_annotation_file
from qanet.coco.evaluation import MaskTruth, ap_title
from qanet.coco.rescoring import Scored, score_results
from qanet.coco.results import ARRAY, count_maps, stream_maps, stream_results, write_results
from qanet.commandline import command_parser, emit, note, output_file, table
from qanet.errors import QanetError
from qanet.metrics.measures import rank_correlation
from qanet.paths import check_outputs
from qanet.quality import MASK_THRESHOLD, QAM_WEIGHTS

_INLINE = "inline"
_FORMATS = f"""\
RESULTS.json holds {{image_id, category_id, bbox [x, y, w, h], segmentation (run lengths), score}}, and, if the network
predicts it, iou_score or mask_iou. The probabilities are each result's small map (28x28, mostly; any size) of its own
class, after the sigmoid, over its bbox, before it is pasted into the image:

  --probabilities FILE.npz   one array {ARRAY} (N, h, w) in the order of the results; uint8 (255 is 1) or floats
  inline (default)           a key {ARRAY} in each result: nested lists of numbers, or
                             {{"size": [h, w], "dtype": "uint8|float16|float32", "data": base64, row by row}};
                             or a key pixel_score, where the map was pasted already:
                             area(p >= 0.75) / max(area(p >= 0.25), 1e-6)

  Detectron2      pred_masks (N, 1, 28, 28), before paste_masks_in_image
  MMDetection     mask_preds.sigmoid() of each result's class, before _do_paste_mask
  torchvision     masks are pasted already: write pixel_score
"""


def measure(truth: MaskTruth, scored: Scored, quality: NDArray[np.float32]) -> dict[str, Any]:
    """AP with the detector's score and with Q, and how each ranks masks by their true IoU."""
    before = [{**result, "score": float(box)} for result, box in zip(scored.results, scored.box)]
    after = [{**result, "score": float(score)} for result, score in zip(scored.results, quality)]
    true_iou = truth.true_iou(before)
    document: dict[str, Any] = {
        "protocol": "lvis" if truth.lvis else "coco",
        "before": truth.average_precision(before),
        "after": truth.average_precision(after),
        "mean_true_iou": float(true_iou.mean()) if len(true_iou) else math.nan,
    }
    columns = {"box": scored.box, "iou": scored.iou, "pixel": scored.pixel, "quality": quality}
    for suffix, chosen in (("", true_iou >= 0), ("_matched", true_iou >= 0.5)):
        document[f"rank_correlation{suffix}"] = {
            name: rank_correlation(column[chosen].astype(np.float64), true_iou[chosen])
            for name, column in columns.items()
            if column is not None
        }
    return document


def _weights(text: str) -> tuple[float, float, float]:
    try:
        a, b, g = (float(v) for v in text.split(","))
    except ValueError as error:
        raise QanetError("bad --weights", expected="three numbers a,b,g like 1,0.5,3", got=text) from error
    if not all(math.isfinite(v) and v >= 0 for v in (a, b, g)) or a + b + g == 0:
        raise QanetError("bad --weights", expected="numbers of 0 or more with a positive sum", got=text)
    return a, b, g


def main(argv: Sequence[str]) -> int:
    """Entry point."""
    parser = command_parser(
        "rescore",
        "Rank the results of any Mask R-CNN again, by the quality of their masks (QAM).",
        epilog=_FORMATS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("results", metavar="RESULTS.json", help="COCO or LVIS results with bbox and segmentation")
    parser.add_argument(
        "--output",
        required=True,
        type=output_file,
        metavar="NEW.json",
        help="file for the rescored results; - is standard output",
    )
    parser.add_argument(
        "--probabilities",
        default=_INLINE,
        metavar="FILE.npz|inline",
        help="source of the maps, see below (default: inline)",
    )
    parser.add_argument(
        "--weights",
        default=",".join(f"{w:g}" for w in QAM_WEIGHTS),
        metavar="A,B,G",
        help="exponents of box, predicted IoU and pixel score (default: 1,0.5,3)",
    )
    parser.add_argument(
        "--threshold", type=float, default=MASK_THRESHOLD, metavar="T", help="of the pixel score (default: 0.25)"
    )
    parser.add_argument("--annotations", metavar="COCO.json", help="print AP and rank correlations before and after")
    args = parser.parse_args(argv)
    weights = _weights(args.weights)
    maps_file = None if args.probabilities == _INLINE else Path(args.probabilities)
    check_outputs([Path(args.output)], read=[args.results, args.annotations, maps_file])
    truth, sizes = None, {}
    if args.annotations:
        annotations = read_annotation_file(Path(args.annotations))
        truth, sizes = MaskTruth(annotations), _sizes(annotations)
    maps = None if maps_file is None else stream_maps(maps_file)
    if maps_file is not None:
        note(f"{maps_file}: {count_maps(maps_file)} maps")
    scored = score_results(stream_results(Path(args.results)), maps, args.results, sizes, args.threshold)
    quality = scored.quality(weights)
    if truth is not None:
        truth.check(scored.results)
    write_results(Path(args.output), scored.rescored(quality))
    used = (weights[0], 0.0 if scored.iou is None else weights[1], weights[2])
    document: dict[str, Any] = {
        "output": args.output,
        "results": len(scored.results),
        "weights": list(used),
        "predicted_iou": scored.iou is not None,
        "mean_pixel_score": float(scored.pixel.mean()) if len(scored.pixel) else math.nan,
    }
    if truth is not None:
        document |= measure(truth, scored, quality)
    emit(args.json, document, _text(document), args.output)
    return 0


def _sizes(annotations: Document) -> dict[Any, tuple[int, int]]:
    return {image["id"]: (int(image["height"]), int(image["width"])) for image in annotations["images"]}


def _text(document: dict[str, Any]) -> str:
    a, b, g = document["weights"]
    head = f"wrote {document['output']}: {document['results']} results, Q of box^{a:g} iou^{b:g} pixel^{g:g}"
    if not document["predicted_iou"]:
        head += " (no predicted IoU in these results)"
    if "before" not in document:
        return head + "\nnext: add --annotations COCO.json to see AP before and after"
    before, after = document["before"], document["after"]
    rows: list[tuple[object, ...]] = [
        (ap_title(key), *(_percent(side[key]) for side in (before, after))) for key in before
    ]
    parts = [
        f"rank correlation with the true mask IoU, {what}: "
        + ", ".join(f"{name} {'undefined' if math.isnan(v) else f'{v:.3f}'}" for name, v in document[key].items())
        for key, what in (("rank_correlation", "all results"), ("rank_correlation_matched", "those with IoU >= 0.5"))
    ]
    return "\n\n".join([head, table(rows, (f"mask AP ({document['protocol']})", "before", "after")), "\n".join(parts)])


def _percent(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{100 * value:.2f}"
