"""What the network sees: sample frames, and one crop through all precisions."""

import base64
from typing import Any

from qanet.benchmarks.report.markup import Safe, paragraph, section, table, tag
from qanet.benchmarks.report.pictures import Legend, Picture, Pictures
from qanet.benchmarks.report.values import NOT_MEASURED, plain, share


def frames(pictures: Pictures) -> Safe:
    """Sample frames with the people drawn in."""
    if not pictures.frames:
        return section("frames", "Sample frames", paragraph(f"Sample frames: {NOT_MEASURED}.", class_="quiet"))
    words = "Q is the fused quality of a person, iou the network's guess of its own mean IoU, pix the pixel score."
    return section(
        "frames",
        "Sample frames",
        tag("div", *map(_figure, pictures.frames), class_="frames"),
        _legend(pictures.frame_legend),
        paragraph(words, class_="note"),
    )


def differences(document: dict[str, Any], pictures: Pictures) -> Safe:
    """Agreement with FP32 in numbers, and where it fails in pictures."""
    rows = []
    for precision, agreement in document.get("agreement", {}).items():
        cells: list[object] = [share(agreement.get(key)) for key in ("pixels", "foreground", "miou")]
        for score in ("quality", "iou", "pixel"):
            difference = agreement.get(f"{score}_score_difference") or {}
            cells.append(f"{_score(difference.get('mean'))} / {_score(difference.get('max'))}")
        rows.append([precision, agreement.get("against", ""), plain(agreement.get("crops")), *cells])
    header = (
        "precision",
        "against",
        "crops",
        "pixels agree",
        "foreground agrees",
        "mean IoU",
        "quality, mean / max",
        "iou score, mean / max",
        "pixel score, mean / max",
    )
    parts: list[object] = [
        table("Labels at crop resolution, and absolute differences of the scores (0 to 1)", header, rows, 2)
        if rows
        else paragraph(f"Agreement between precisions: {NOT_MEASURED}.", class_="quiet")
    ]
    if pictures.crops:
        parts.append(paragraph(pictures.crop_note, class_="note"))
        parts.append(tag("div", *map(_figure, pictures.crops), class_="crops"))
        parts.append(_legend(pictures.crop_legend))
    return section("differences", "Where the precisions differ", *parts)


def _figure(picture: Picture) -> Safe:
    source = f"data:{picture.mime};base64,{base64.b64encode(picture.data).decode()}"
    image = tag("img", src=source, alt=picture.caption, width=picture.width, height=picture.height)
    return tag("figure", image, tag("figcaption", picture.caption))


def _legend(legend: Legend) -> Safe | None:
    if not legend:
        return None
    entries = [tag("li", tag("i", style=f"background: rgb({r}, {g}, {b})"), name) for name, (r, g, b) in legend]
    return tag("ul", *entries, class_="legend", aria_label="Colours of the classes")


def _score(value: float | None) -> str:
    return NOT_MEASURED if value is None else f"{value:.4f}"
