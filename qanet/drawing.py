"""Overlays: part colours, contours, boxes with scores, and a legend of the classes that are there."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from qanet.labels import LabelSet

_INK, _PAPER = (32, 32, 32), (250, 250, 250)


class Person(Protocol):
    """What is written over a box; `qanet.results.PersonParsing` has it."""

    box: NDArray[np.float32]
    quality: float
    iou_score: float
    pixel_score: float
    track_id: int | None


def draw_people(
    image: NDArray[np.uint8], labels: NDArray[np.uint8], label_set: LabelSet, people: Sequence[Person], *,
    alpha: float, boxes: bool, legend: bool, max_width: int = 0,
) -> NDArray[np.uint8]:  # fmt: skip
    """A picture of the people (best first) over a copy of the image; arguments as `ParsingResult.draw`."""
    canvas, shrink = image.copy(), 1.0
    if 0 < max_width < canvas.shape[1]:
        # Shrunk before anything is drawn: the text stays readable and the blending is cheaper.
        shrink = max_width / canvas.shape[1]
        canvas, labels = _shrunk(canvas, labels, shrink)
    blend_labels(canvas, labels, label_set, alpha)
    scale = max(0.7, min(canvas.shape[:2]) / 900)
    if boxes:
        for person in reversed(people):
            _draw_box(canvas, person, scale, shrink)
    if legend:
        _draw_legend(canvas, labels, label_set, scale)
    return canvas


def _shrunk(
    image: NDArray[np.uint8], labels: NDArray[np.uint8], shrink: float
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    import cv2

    size = (max(1, round(image.shape[1] * shrink)), max(1, round(image.shape[0] * shrink)))
    smaller = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return smaller, cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)


def blend_labels(canvas: NDArray[np.uint8], labels: NDArray[np.uint8], label_set: LabelSet, alpha: float) -> None:
    """Blend the classes' colours over a BGR image in place; background stays as it is. Only the labelled box is
    touched, so a small person in a large frame costs little."""
    import cv2

    rows, columns = np.flatnonzero(labels.any(1)), np.flatnonzero(labels.any(0))
    if len(rows) == 0:
        return
    area = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    table = np.zeros((256, 3), np.uint8)
    table[: label_set.num_classes] = label_set.colours_rgb[:, ::-1]
    inside = labels[area]
    region = canvas[area]
    mixed = cv2.addWeighted(region, 1 - alpha, table[inside], alpha, 0)
    np.copyto(region, mixed, where=(inside > 0)[..., None])


def _draw_box(canvas: NDArray[np.uint8], person: Person, scale: float, shrink: float) -> None:
    import cv2

    height, width = canvas.shape[:2]
    x0, y0, x1, y1 = (int(v) for v in np.clip(np.round(person.box * shrink), -8, [width + 8, height + 8] * 2))
    thickness = max(1, round(2 * scale))
    cv2.rectangle(canvas, (x0, y0), (x1, y1), _PAPER, thickness + 2, cv2.LINE_AA)
    cv2.rectangle(canvas, (x0, y0), (x1, y1), _INK, thickness, cv2.LINE_AA)
    name = f"#{person.track_id} " if person.track_id is not None else ""
    text = f"{name}Q {person.quality:.2f}"
    details = f"{text}  iou {person.iou_score:.2f}  pix {person.pixel_score:.2f}"
    if _text_width(details, scale) <= 2 * (x1 - x0):  # small people get the fused score alone
        text = details
    _draw_text(canvas, text, x0, y0, scale)


def _text_width(text: str, scale: float) -> int:
    import cv2

    return int(cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.55 * scale, max(1, round(1.2 * scale)))[0][0])


def _draw_text(canvas: NDArray[np.uint8], text: str, x: int, y: int, scale: float) -> None:
    """A line of text on a plate whose lower left corner is (x, y), moved inside the image where it would leave it."""
    import cv2

    font, size, weight = cv2.FONT_HERSHEY_SIMPLEX, 0.55 * scale, max(1, round(1.2 * scale))
    (width, height), drop = cv2.getTextSize(text, font, size, weight)
    pad = max(2, round(4 * scale))
    x = max(0, min(x, canvas.shape[1] - width - 2 * pad))
    y = max(height + drop + 2 * pad, min(y, canvas.shape[0]))
    cv2.rectangle(canvas, (x, y - height - drop - 2 * pad), (x + width + 2 * pad, y), _PAPER, -1)
    cv2.putText(canvas, text, (x + pad, y - drop - pad), font, size, _INK, weight, cv2.LINE_AA)


def _draw_legend(canvas: NDArray[np.uint8], labels: NDArray[np.uint8], label_set: LabelSet, scale: float) -> None:
    import cv2

    present = [c for c in range(1, label_set.num_classes) if (labels == c).any()]
    if not present:
        return
    font, size, weight = cv2.FONT_HERSHEY_SIMPLEX, 0.5 * scale, max(1, round(scale))
    line, pad = round(22 * scale), round(8 * scale)
    width = max(cv2.getTextSize(label_set.classes[c], font, size, weight)[0][0] for c in present)
    right, bottom = 3 * pad + line + width, 2 * pad + line * len(present)
    if right > canvas.shape[1] or bottom > canvas.shape[0]:
        return  # an image smaller than its legend
    plate = canvas[:bottom, :right]
    cv2.addWeighted(plate, 0.25, np.full_like(plate, 250), 0.75, 0, plate)
    for row, class_id in enumerate(present):
        y = pad + row * line
        colour = tuple(int(v) for v in label_set.colours_rgb[class_id, ::-1])
        cv2.rectangle(canvas, (pad, y + 2), (pad + line - 4, y + line - 4), colour, -1)
        cv2.rectangle(canvas, (pad, y + 2), (pad + line - 4, y + line - 4), _INK, 1)
        baseline = (2 * pad + line, y + round(line * 0.7))
        cv2.putText(canvas, label_set.classes[class_id], baseline, font, size, _INK, weight, cv2.LINE_AA)
