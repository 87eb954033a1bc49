"""What `qanet val` prints, and what a bundle keeps of it as its accuracy card."""

from typing import Any

from qanet.bundle import Bundle
from qanet.commandline import table
from qanet.runtime.evaluate import ANNOTATION

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
