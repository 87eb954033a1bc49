"""The report of `qanet val --suite real`: tables, reliability diagrams, and the people that were parsed worst."""

import base64
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.benchmarks.real import JudgedPerson, ParsingScores, RealReport
from qanet.benchmarks.schema import Interval
from qanet.commandline import table
from qanet.drawing import blend_labels
from qanet.files import write_bytes, write_text
from qanet.labels import IGNORE, LabelSet
from qanet.pages.charts import reliability_diagram
from qanet.pages.render import render
from qanet.pages.svg import COLOURS

_TEMPLATE = Path(__file__).with_name("real.html.j2")
_TILE_PX = 300  # height of a person in the sheet
_CAPTION_PX = 22
_GAP_PX = 6
Table = tuple[str, tuple[str, ...], list[tuple[str, ...]]]  # caption, header, rows


def real_tables(report: RealReport) -> list[Table]:
    """The tables of a report; intervals in brackets."""
    boxes = [
        (d.data, f"{d.photographs}, {d.people}", *(_shown(v) for v in (d.ap50, d.ap30, d.recall, d.precision)))
        for d in report.detection
    ]
    maps = [
        (p.data, p.boxes, f"{p.photographs}, {p.people}", *map(_shown, (p.miou, p.person_iou, p.pixel_accuracy)))
        for p in report.parsing
    ]
    trust = [
        (p.data, *("-" if v is None else f"{v:.3f}" for v in (p.rank_correlation, p.ece_q, p.ece_expected)))
        for p in report.parsing
    ]
    by_class: list[Table] = [
        (f"IoU by class, {p.data}", ("class", "IoU"), [(name, f"{iou:.3f}") for name, iou in p.classes.items()])
        for p in report.parsing
    ]
    found: list[Table] = [
        (
            f"boxes of {report.detector}, [95%]",
            ("data", "photographs, people", "AP50", "AP30", "recall at 0.35", "precision at 0.35"),
            boxes,
        ),
        (
            f"parsing by {report.model}, {report.precision}, [95%]",
            (
                "data",
                "boxes",
                "photographs, people, without truth",
                "mIoU",
                "people against background",
                "pixel accuracy",
            ),
            maps,
        ),
        (
            "scores against the true mean IoU in the box",
            ("data", "rank correlation of Q", "calibration error of Q", "of the expected mIoU"),
            trust,
        ),
        *by_class,
    ]
    return [one for one in found if one[2]]


def real_text(report: RealReport) -> str:
    """The report for a terminal."""
    return "\n\n".join(f"{caption}\n{table(rows, header)}" for caption, header, rows in real_tables(report))


def write_real(folder: Path, report: RealReport, labels: LabelSet) -> list[Path]:
    """Write report.html and a picture worst-DATA.png of each parsed folder; returns the files."""
    written, folders = [], []
    for scores in report.parsing:
        picture = worst_sheet(scores, labels)
        path = folder / f"worst-{scores.data.replace(' ', '-')}.png"
        write_bytes(path, picture)
        written.append(path)
        url = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
        folders.append((scores.data, _charts(scores), url))
    page = render(
        _TEMPLATE,
        title=f"{report.model} on real photographs",
        headline=f"{report.model}, {report.precision} on {report.runtime}, people by {report.detector}",
        tables=real_tables(report),
        folders=folders,
    )
    write_text(folder / "report.html", page)
    return [folder / "report.html", *written]


def _charts(scores: ParsingScores) -> list[tuple[Any, str]]:
    errors = {"Q": scores.ece_q, "expected mIoU": scores.ece_expected}
    return [
        (reliability_diagram(name, scores.reliability[name], COLOURS[colour]), f"calibration error {errors[name]:.3f}")
        for name, colour in (("Q", "fp32"), ("expected mIoU", "int8"))
        if errors[name] is not None
    ]


def worst_sheet(scores: ParsingScores, labels: LabelSet) -> bytes:
    """PNG of the worst people, two in a row: photograph, truth and parsing of each."""
    import cv2

    tiles = [_tile(person, labels if len(scores.classes) > 11 else None) for person in scores.worst]
    width = max((tile.shape[1] for tile in tiles), default=1)
    padded = [np.pad(t, ((0, _GAP_PX), (0, width - t.shape[1] + _GAP_PX), (0, 0)), constant_values=255) for t in tiles]
    if len(padded) % 2:
        padded.append(np.full_like(padded[0], 255))
    rows = [np.hstack(padded[i : i + 2]) for i in range(0, len(padded), 2)] or [np.full((8, 8, 3), 255, np.uint8)]
    data: bytes = cv2.imencode(".png", np.vstack(rows))[1].tobytes()
    return data


def _tile(person: JudgedPerson, labels: LabelSet | None) -> NDArray[np.uint8]:
    import cv2

    scale = min(_TILE_PX / person.image.shape[0], 1.6 * _TILE_PX / person.image.shape[1])
    size = (max(8, round(person.image.shape[1] * scale)), max(8, round(person.image.shape[0] * scale)))
    image = cv2.resize(person.image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    panels = [image]
    for wanted in (person.truth, person.parsed):
        small = cv2.resize(wanted, size, interpolation=cv2.INTER_NEAREST)
        panels.append(_coloured(image, small, labels))
    picture = np.hstack(panels)
    strip = np.full((_CAPTION_PX, max(picture.shape[1], 300), 3), 255, np.uint8)
    expected = "" if person.expected_miou is None else f", expected {person.expected_miou:.2f}"
    words = f"{person.photo}: IoU {person.true_miou:.2f}{expected}, Q {person.quality:.2f}"
    cv2.putText(strip, words, (2, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (32, 32, 32), 1, cv2.LINE_AA)
    room = strip.shape[1] - picture.shape[1]
    return np.asarray(np.vstack([strip, np.pad(picture, ((0, 0), (0, room), (0, 0)), constant_values=255)]), np.uint8)


def _coloured(image: NDArray[np.uint8], ids: NDArray[np.uint8], labels: LabelSet | None) -> NDArray[np.uint8]:
    """The colours of the classes over a paler picture; IGNORE is white."""
    from qanet.labels import CCP13

    canvas = image.copy()
    blend_labels(canvas, np.where(ids == IGNORE, 0, ids).astype(np.uint8), labels or CCP13, 0.75)
    canvas[ids == IGNORE] = 255
    return canvas


def _shown(value: Interval) -> str:
    return f"{value.value:.3f} [{value.low:.3f}, {value.high:.3f}]"
