"""Faces or whole people made unrecognisable in the pixels; labels and scores do not change.

The hidden area errs on the large side: the pixels of the face, the holes in them and a margin. If no face of a
plausible size is found (a person turned away, or the parsing missed it), the place of the head is hidden. A lost person
stays hidden for half a second at the last place. A person whom the detector never finds cannot be hidden.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qanet.labels import LabelSet
from qanet.results import People, Person


@dataclass
class Area:
    """Pixels to hide: a mask in a window of the image, and the size of the cells that hide them."""

    x0: int
    y0: int
    mask: NDArray[np.uint8]  # (h, w), 1 for pixels to hide
    cell_px: float
    track_id: int | None = None

    @property
    def box(self) -> tuple[int, int, int, int]:
        """xyxy of the window."""
        return self.x0, self.y0, self.x0 + self.mask.shape[1], self.y0 + self.mask.shape[0]


BLURS = ("face", "person")
HOLD_FRAMES = 12  # half a second, for a person whom detector and tracker lost

# Names of a face in the label sets ("head" is the whole head); celebamask19 has pieces of it, CCP only skin.
_FACE = frozenset({"face", "head"})
_PIECES = frozenset(
    {
        "skin",
        "nose",
        "left-eye",
        "right-eye",
        "left-brow",
        "right-brow",
        "left-ear",
        "right-ear",
        "mouth",
        "upper-lip",
        "lower-lip",
    }
)
_WORN = frozenset({"glasses", "sunglasses", "eyewear", "eyeglasses"})
_HEAD = frozenset({"hair", "hat", "cap/hat", "helmet", "headwear"})

_FACE_MARGIN = 0.25  # of the face's longer side
_PERSON_MARGIN = 0.03  # of the box's longer side
_LEAST_OF_LONGER, _LEAST_OF_SHORTER = 0.06, 0.1  # of the box's sides: anything smaller is a speck, not a face
_HEAD_SHARE = 0.3  # of the box, from its upper edge: the place of a head that was not found
_HEAD_HEIGHT, _HEAD_SIDE = (1.6, 0.4)  # of the width of the hair: height of the head, margin at its sides
_HEAD_OF_PERSON = 0.12  # of the box's longer side: the least width of a head, however little hair is visible
_CELLS = 4  # across a face: no feature remains


class Privacy:
    """Hides the people of each frame of a stream.

    Args:
        blur: "face" or "person".
        moving: whether frames follow each other, so that a lost person is near the place in the last frame.
    """

    def __init__(self, blur: str, moving: bool = False):
        self.blur, self._moving = blur, moving
        self._held: list[tuple[Area, int]] = []  # with the number of further frames

    def __call__(self, result: People) -> People:
        """The result with the hidden areas replaced in a copy of its image."""
        areas = [area for person in result for area in _hidden_areas(person, result.label_set, self.blur)]
        lost = self._lost(areas) if self._moving else []
        image = result.image.copy()
        hidden = [*areas, *(area for area, _ in lost)]
        for area in sorted(hidden, key=lambda area: area.cell_px):  # where two overlap, the coarser wins
            hide(result.image, image, area)
        self._held = [(area, HOLD_FRAMES) for area in areas] + lost
        return replace(result, image=image)

    def _lost(self, areas: list[Area]) -> list[tuple[Area, int]]:
        """Areas hidden before whose person has none in this frame; widened once, for the person may have moved."""
        ids = {area.track_id for area in areas if area.track_id is not None}
        kept = []
        for area, left in self._held:
            known = area.track_id in ids if area.track_id is not None else any(overlap(area, new) for new in areas)
            if left > 0 and not known:
                kept.append((widened(area) if left == HOLD_FRAMES else area, left - 1))
        return kept


def _hidden_areas(person: Person, labels: LabelSet, blur: str) -> list[Area]:
    """The areas of a person to hide, with their margins."""
    if person.labels.size == 0:  # OpenCV accepts no empty picture
        person = replace(person, labels=np.zeros((1, 1), np.uint8))
    areas = _seen_face(person, labels) or _unseen_face(person, labels)
    if blur == "person":
        body = _body(person)
        areas = [*areas, body] if body is not None else [rectangle(person.box, _cell_of(person))]
    return [replace(area, track_id=person.track_id) for area in areas]


def _seen_face(person: Person, labels: LabelSet) -> list[Area]:
    """The hulls of face parts and of glasses, with a margin; empty if none has the size of a face."""
    heads = _heads(person, labels)
    face = _table(labels, _FACE if set(labels.classes) & _FACE else _PIECES)[person.labels]
    if not set(labels.classes) & (_FACE | {"nose"}):  # skin can be anywhere: only skin inside a head is a face
        near = np.zeros_like(face)
        for x0, y0, x1, y1 in heads or [_upper_end(person)]:
            left, top = max(x0 - person.roi[0], 0), max(y0 - person.roi[1], 0)
            near[top : max(y1 - person.roi[1], 0), left : max(x1 - person.roi[0], 0)] = True
        face &= near
    faces = hulls(face)
    if not any(_side(hull) >= _least_face(person) for hull in faces):
        return []
    largest = max(map(_side, faces))
    lacking = (_HEAD_OF_PERSON * _longest(person) - largest) / 2  # of a partly visible face
    margin = max(_FACE_MARGIN * largest, lacking) + 2
    worn = hulls(_table(labels, _WORN)[person.labels])
    return [
        grown(filled([hull - hull.min(0)]), hull.min(0) + person.roi[:2], margin, largest / _CELLS)
        for hull in faces + worn
    ]


def _unseen_face(person: Person, labels: LabelSet) -> list[Area]:
    """The place of the head: around hair or hat, or else the upper end of the box."""
    cell_px = _cell_of(person)
    return [rectangle(np.array(box), cell_px) for box in _heads(person, labels) or [_upper_end(person)]]


def _heads(person: Person, labels: LabelSet) -> list[tuple[int, int, int, int]]:
    """xyxy in the image of the heads below hair or hats of a plausible size; usually one."""
    import cv2

    hair = _table(labels, _HEAD)[person.labels].astype(np.uint8)
    count, _, stats, _ = cv2.connectedComponentsWithStats(hair, connectivity=8)
    heads = []
    for x, y, width, height, _ in stats[1:count].tolist():
        if max(width, height) < _least_face(person):
            continue
        wide = max(width, _HEAD_OF_PERSON * _longest(person))
        beside, down = _HEAD_SIDE * wide + (wide - width) / 2, max(_HEAD_HEIGHT * wide, height)
        x0, y0 = x + person.roi[0], y + person.roi[1]
        above = _FACE_MARGIN * wide
        heads.append((int(x0 - beside), int(y0 - above), int(x0 + width + beside) + 1, int(y0 + down) + 1))
    return heads


def _upper_end(person: Person) -> tuple[int, int, int, int]:
    """xyxy of the upper end of a box, at least as high as the box is wide: all of a box that is not upright."""
    x0, y0, x1, y1 = person.box.astype(float).tolist()
    y1 = min(y1, y0 + max(_HEAD_SHARE * (y1 - y0), x1 - x0))
    by = _PERSON_MARGIN * _longest(person)
    return int(x0 - by), int(y0 - by), int(x1 + by) + 1, int(y1 + by) + 1


def _table(labels: LabelSet, names: frozenset[str]) -> NDArray[np.bool_]:
    """(256,) bool: whether a class id has one of the names."""
    table = np.zeros(256, bool)
    table[: labels.num_classes] = [name in names for name in labels.classes]
    return table


def _body(person: Person) -> Area | None:
    """All pixels of a person and what they enclose, with a margin; None if there are none."""
    import cv2

    contours, _ = cv2.findContours((person.labels > 0).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not contours:
        return None
    margin = _PERSON_MARGIN * _longest(person) + 2
    body = filled([contour[:, 0] for contour in contours], person.labels.shape)
    return grown(body, person.roi[:2], margin, _cell_of(person))


def _cell_of(person: Person) -> float:
    """Cell size of a person: 12 cells along an upright person, whose face is one of them; 4 across a close-up."""
    sides = person.box[2:] - person.box[:2]
    return max(float(sides.min()) / _CELLS, float(sides.max()) / 12)


def _least_face(person: Person) -> float:
    """The least length of a face in pixels."""
    sides = person.box[2:] - person.box[:2]
    return max(_LEAST_OF_LONGER * float(sides.max()), _LEAST_OF_SHORTER * float(sides.min()))


def _longest(person: Person) -> float:
    return max(float((person.box[2:] - person.box[:2]).max()), 1.0)


def _side(hull: NDArray[np.int32]) -> int:
    """The longer side of the box around a hull."""
    return int(np.ptp(hull, 0).max()) + 1


_LEAST_CELL_PX = 4.0
_STEP = 16  # between the values of a cell: many frames of one face must not add up to its details


def hulls(mask: NDArray[np.bool_]) -> list[NDArray[np.int32]]:
    """Convex hull of each connected piece, (K, 2) int32 xy corners."""
    import cv2

    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [cv2.convexHull(contour)[:, 0] for contour in contours]


def filled(outlines: list[NDArray[np.int32]], shape: tuple[int, ...] | None = None) -> NDArray[np.uint8]:
    """(h, w) uint8: 1 inside the outlines and on them."""
    import cv2

    if shape is None:
        width, height = outlines[0].max(0) + 1
        shape = (int(height), int(width))
    canvas = np.zeros(shape, np.uint8)
    cv2.fillPoly(canvas, [np.ascontiguousarray(line) for line in outlines], 1)
    return canvas


def grown(mask: NDArray[np.uint8], origin_xy: ArrayLike, margin: float, cell_px: float) -> Area:
    """A mask grown by a margin of pixels along rows and columns."""
    import cv2

    pad = int(np.ceil(margin))
    square = np.ones((2 * pad + 1, 2 * pad + 1), np.uint8)
    x0, y0 = (np.asarray(origin_xy) - pad).tolist()
    return Area(x0, y0, cv2.dilate(np.pad(mask, pad), square), cell_px)


def rectangle(box: NDArray, cell_px: float) -> Area:
    (x0, y0), (x1, y1) = np.floor(box[:2]).astype(int).tolist(), np.ceil(box[2:]).astype(int).tolist()
    return Area(x0, y0, np.ones((max(y1 - y0, 1), max(x1 - x0, 1)), np.uint8), cell_px)


def widened(area: Area) -> Area:
    """The whole window of an area, grown by a quarter on every side."""
    x0, y0, x1, y1 = area.box
    by = np.array([x1 - x0, y1 - y0]) * 0.25
    return replace(
        rectangle(np.array([x0, y0, x1, y1] + np.concatenate([-by, by])), area.cell_px), track_id=area.track_id
    )


def overlap(one: Area, other: Area) -> bool:
    """Whether two windows share at least a third of the smaller one."""
    a, b = np.array(one.box), np.array(other.box)
    shared = np.prod(np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None))
    return bool(3 * shared >= min(one.mask.size, other.mask.size))


def hide(source: NDArray[np.uint8], target: NDArray[np.uint8], area: Area) -> None:
    """Replace an area of the target by a few coarse cells of the source."""
    import cv2

    (height, width), (x0, y0, x1, y1) = source.shape[:2], area.box
    left, top, right, bottom = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
    if left >= right or top >= bottom:
        return
    window = source[top:bottom, left:right]
    cell_px = max(area.cell_px, _LEAST_CELL_PX)
    cells = (max(1, int((right - left) / cell_px)), max(1, int((bottom - top) / cell_px)))
    small = cv2.resize(window, cells, interpolation=cv2.INTER_AREA)
    small = (small // _STEP * _STEP + _STEP // 2).reshape(cells[1], cells[0], 3)
    hidden = cv2.resize(small, (right - left, bottom - top), interpolation=cv2.INTER_LINEAR)
    mask = area.mask[top - y0 : bottom - y0, left - x0 : right - x0]
    cv2.copyTo(hidden, np.ascontiguousarray(mask), target[top:bottom, left:right])
