"""Overlays: part colours, boxes with scores, and a legend of the visible classes.

A label set may have more classes than there are colours that every viewer can distinguish; its parts then bear the
number of their legend entry.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from qanet.labels import SAFE_COLOURS, LabelSet

_INK, _PAPER = (32, 32, 32), (250, 250, 250)
_FONT = 0  # cv2.FONT_HERSHEY_SIMPLEX
_Rectangle = tuple[int, int, int, int]  # xyxy


class DrawnPerson(Protocol):
    """What is drawn over a person; `qanet.results.Person` is one."""

    box: NDArray[np.float32]
    quality: float
    iou_score: float
    pixel_score: float
    track_id: int | None
    labels: NDArray[np.uint8]
    roi: tuple[int, int, int, int]


def draw_people(
    image: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    label_set: LabelSet,
    people: Sequence[DrawnPerson],
    *,
    alpha: float,
    boxes: bool,
    legend: bool,
    max_width: int = 0,
) -> NDArray[np.uint8]:
    """A picture of the people (best first) over a copy of the image; arguments as `People.draw`."""
    canvas, shrink = image.copy(), 1.0
    if 0 < max_width < canvas.shape[1]:
        # Shrunk before anything is drawn: the text stays readable and the blending is cheaper.
        shrink = max_width / canvas.shape[1]
        canvas, labels = _shrunk(canvas, labels, shrink)
    blend_labels(canvas, labels, label_set, alpha)
    scale = max(0.7, min(canvas.shape[:2]) / 900)
    numbered = legend and label_set.num_classes > SAFE_COLOURS
    if numbered:
        for person in people:
            _draw_numbers(canvas, person, scale, shrink)
    taken = [_draw_legend(canvas, labels, label_set, scale, numbered)] if legend else []
    if boxes:
        for person in reversed(people):
            _draw_box(canvas, person, scale, shrink)
        for person in people:  # the best person chooses a place first
            _draw_scores(canvas, person, scale, shrink, taken)
    return canvas


def _shrunk(
    image: NDArray[np.uint8], labels: NDArray[np.uint8], shrink: float
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    import cv2

    size = (max(1, round(image.shape[1] * shrink)), max(1, round(image.shape[0] * shrink)))
    smaller = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return smaller, cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)


def blend_labels(canvas: NDArray[np.uint8], labels: NDArray[np.uint8], label_set: LabelSet, alpha: float) -> None:
    """Blend the classes' colours over a BGR image in place; background stays as it is.

    Only the box around the labels is blended, so a small person in a large frame costs little.
    """
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


def _corners(canvas: NDArray[np.uint8], person: DrawnPerson, shrink: float) -> _Rectangle:
    height, width = canvas.shape[:2]
    x0, y0, x1, y1 = np.clip(np.round(person.box * shrink), -8, [width + 8, height + 8] * 2).astype(int).tolist()
    return x0, y0, x1, y1


def _draw_box(canvas: NDArray[np.uint8], person: DrawnPerson, scale: float, shrink: float) -> None:
    import cv2

    x0, y0, x1, y1 = _corners(canvas, person, shrink)
    thickness = max(1, round(2 * scale))
    cv2.rectangle(canvas, (x0, y0), (x1, y1), _PAPER, thickness + 2, cv2.LINE_AA)
    cv2.rectangle(canvas, (x0, y0), (x1, y1), _INK, thickness, cv2.LINE_AA)


def _draw_scores(
    canvas: NDArray[np.uint8], person: DrawnPerson, scale: float, shrink: float, taken: list[_Rectangle]
) -> None:
    """Number and scores on a plate above the box, or where there is room; the plate is added to `taken`."""
    x0, y0, x1, y1 = _corners(canvas, person, shrink)
    name = f"#{person.track_id} " if person.track_id is not None else ""
    text = f"{name}Q {person.quality:.2f}"
    details = f"{text}  iou {person.iou_score:.2f}  pix {person.pixel_score:.2f}"
    if _text_size(details, scale)[0] <= 2 * (x1 - x0):  # small people get the fused score alone
        text = details
    pad = max(2, round(4 * scale))
    width, height, drop = _text_size(text, scale)
    width, height = width + 2 * pad, height + drop + 2 * pad
    right = x1 - width
    places = [
        (x0, y0 - height),
        (right, y0 - height),
        (x0, y1),
        (right, y1),
        (x1, y0),
        (x0 - width, y0),
        (x0, y0 - 2 * height),
        (x0, y1 + height),
        (x0, y0),
        (right, y0),
    ]
    plates = [_inside(canvas, x, y, width, height) for x, y in places]
    plate = next((plate for plate in plates if not any(_meet(plate, other) for other in taken)), plates[0])
    taken.append(plate)
    _draw_plate(canvas, text, plate, pad, drop, scale)


def _inside(canvas: NDArray[np.uint8], x: int, y: int, width: int, height: int) -> _Rectangle:
    """A plate, moved into the image where it would reach outside."""
    x = max(0, min(x, canvas.shape[1] - width))
    y = max(0, min(y, canvas.shape[0] - height))
    return x, y, x + width, y + height


def _meet(one: _Rectangle, other: _Rectangle) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _text_size(text: str, scale: float) -> tuple[int, int, int]:
    """Width, height above the base line and below it."""
    import cv2

    (width, height), drop = cv2.getTextSize(text, _FONT, 0.55 * scale, max(1, round(1.2 * scale)))
    return int(width), int(height), int(drop)


def _draw_plate(canvas: NDArray[np.uint8], text: str, plate: _Rectangle, pad: int, drop: int, scale: float) -> None:
    import cv2

    cv2.rectangle(canvas, plate[:2], (plate[2] - 1, plate[3] - 1), _PAPER, -1)
    weight = max(1, round(1.2 * scale))
    cv2.putText(canvas, text, (plate[0] + pad, plate[3] - drop - pad), _FONT, 0.55 * scale, _INK, weight, cv2.LINE_AA)


def _draw_numbers(canvas: NDArray[np.uint8], person: DrawnPerson, scale: float, shrink: float) -> None:
    """A class's number where the part is widest; none where it is too narrow."""
    import cv2

    for class_id in _present(person.labels):
        mask = (person.labels == class_id).astype(np.uint8)
        x, y, width, height = cv2.boundingRect(mask)
        depth = cv2.distanceTransform(np.pad(mask[y : y + height, x : x + width], 1), cv2.DIST_L2, cv2.DIST_MASK_3)
        _, radius, _, (column, row) = cv2.minMaxLoc(depth)
        text_width, text_height, _ = _text_size(str(class_id), 0.8 * scale)
        if radius * shrink < 0.7 * max(text_width, text_height) / 2:
            continue
        middle_x, middle_y = (person.roi[0] + x + column - 1) * shrink, (person.roi[1] + y + row - 1) * shrink
        origin = (round(middle_x - text_width / 2), round(middle_y + text_height / 2))
        weight = max(1, round(scale))
        for colour, more in ((_PAPER, 2 * weight), (_INK, 0)):
            cv2.putText(canvas, str(class_id), origin, _FONT, 0.44 * scale, colour, weight + more, cv2.LINE_AA)


def _present(labels: NDArray[np.uint8]) -> list[int]:
    """The ids of the visible classes, without background."""
    import cv2

    if labels.size == 0:
        return []
    counts = cv2.calcHist([labels], [0], None, [256], [0, 256]).ravel()
    return [class_id for class_id in np.flatnonzero(counts).tolist() if class_id]


def _draw_legend(
    canvas: NDArray[np.uint8], labels: NDArray[np.uint8], label_set: LabelSet, scale: float, numbered: bool
) -> _Rectangle:
    """The visible classes in as many columns as needed; returns the legend's rectangle, empty where it does not fit."""
    import cv2

    present = _present(labels)
    names = [f"{c} {label_set.classes[c]}" if numbered else label_set.classes[c] for c in present]
    size, weight = 0.5 * scale, max(1, round(scale))
    line, pad = round(22 * scale), round(8 * scale)
    rows = min(len(present), (canvas.shape[0] - 2 * pad) // line)
    if rows < 1:
        return 0, 0, 0, 0
    column = 3 * pad + line + max(cv2.getTextSize(name, _FONT, size, weight)[0][0] for name in names)
    right, bottom = column * -(-len(present) // rows), 2 * pad + line * rows
    if right > canvas.shape[1]:
        return 0, 0, 0, 0
    plate = canvas[:bottom, :right]
    cv2.addWeighted(plate, 0.25, np.full_like(plate, 250), 0.75, 0, plate)
    for number, (class_id, name) in enumerate(zip(present, names)):
        x, y = pad + number // rows * column, pad + number % rows * line
        colour = tuple(int(v) for v in label_set.colours_rgb[class_id, ::-1])
        cv2.rectangle(canvas, (x, y + 2), (x + line - 4, y + line - 4), colour, -1)
        cv2.rectangle(canvas, (x, y + 2), (x + line - 4, y + line - 4), _INK, 1)
        cv2.putText(canvas, name, (x + pad + line, y + round(line * 0.7)), _FONT, size, _INK, weight, cv2.LINE_AA)
    return 0, 0, right, bottom
