"""Faces or whole people made unrecognisable in the pixels; labels and scores stay as they are.

What is hidden fails safe: the face's pixels, the holes in them and a margin; where no face of a likely size is seen
(somebody turned away, or the parsing missed it), the place of the head. A person who is lost stays hidden for a moment
where they were last. Somebody whom the detector does not find at all cannot be hidden.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from qanet.labels import LabelSet
from qanet.results import People, Person
from qanet.runtime.video.hidden_area import Area, filled, grown, hide, hulls, overlap, rectangle, widened

BLURS = ("face", "person")
HOLD_FRAMES = 12  # half a second of a person whom the detector and the tracker lost

# A face where the set has one ("head" takes the whole head); celebamask19 has it in pieces, CCP only as skin.
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
_LEAST_OF_LONGER, _LEAST_OF_SHORTER = 0.06, 0.1  # of the box's sides: what is smaller is a speck and no face
_HEAD_SHARE = 0.3  # of the box from its upper edge: where a head is of which nothing was seen
_HEAD_HEIGHT, _HEAD_SIDE = 1.6, 0.4  # of the hair's width: down from its top, and beside it
_HEAD_OF_PERSON = 0.12  # of the box's longer side: where less hair is seen, a head is so wide all the same
_CELLS = 4  # across a face: no feature of it is left


class Privacy:
    """Hides the people of each frame of a stream.

    Args:
        blur: "face" or "person".
        moving: frames follow each other, so that somebody who is lost was a moment ago where they are now.
    """

    def __init__(self, blur: str, moving: bool = False):
        self.blur, self._moving = blur, moving
        self._held: list[tuple[Area, int]] = []  # and for how many more frames

    def __call__(self, result: People) -> People:
        """The result with an image in which nobody is to be recognised; the given image is not touched."""
        areas = [area for person in result for area in _hidden_areas(person, result.label_set, self.blur)]
        lost = self._lost(areas) if self._moving else []
        image = result.image.copy()
        hidden = [*areas, *(area for area, _ in lost)]
        for area in sorted(hidden, key=lambda area: area.cell_px):  # where two lie over each other, the coarser wins
            hide(result.image, image, area)
        self._held = [(area, HOLD_FRAMES) for area in areas] + lost
        return replace(result, image=image)

    def _lost(self, areas: list[Area]) -> list[tuple[Area, int]]:
        """Of what was hidden before, that which nothing of this frame stands for; widened, for it may have moved."""
        ids = {area.track_id for area in areas if area.track_id is not None}
        kept = []
        for area, left in self._held:
            known = area.track_id in ids if area.track_id is not None else any(overlap(area, new) for new in areas)
            if left > 0 and not known:
                kept.append((widened(area) if left == HOLD_FRAMES else area, left - 1))
        return kept


def _hidden_areas(person: Person, labels: LabelSet, blur: str) -> list[Area]:
    """What of a person is to be hidden, with its margin."""
    if person.labels.size == 0:  # OpenCV bears no empty picture
        person = replace(person, labels=np.zeros((1, 1), np.uint8))
    areas = _seen_face(person, labels) or _unseen_face(person, labels)
    if blur == "person":
        body = _body(person)
        areas = [*areas, body] if body is not None else [rectangle(person.box, _cell_of(person))]
    return [replace(area, track_id=person.track_id) for area in areas]


def _seen_face(person: Person, labels: LabelSet) -> list[Area]:
    """The hulls of all that is a face, or worn on it, grown; empty where nothing has the size of a face."""
    heads = _heads(person, labels)
    face = _table(labels, _FACE if set(labels.classes) & _FACE else _PIECES)[person.labels]
    if not set(labels.classes) & (_FACE | {"nose"}):  # skin is everywhere: a face is what lies in a head
        near = np.zeros_like(face)
        for x0, y0, x1, y1 in heads or [_upper_end(person)]:
            left, top = max(x0 - person.roi[0], 0), max(y0 - person.roi[1], 0)
            near[top : max(y1 - person.roi[1], 0), left : max(x1 - person.roi[0], 0)] = True
        face &= near
    faces = hulls(face)
    if not any(_side(hull) >= _least_face(person) for hull in faces):
        return []
    largest = max(map(_side, faces))
    lacking = (_HEAD_OF_PERSON * _longest(person) - largest) / 2  # of a face that was seen in part
    margin = max(_FACE_MARGIN * largest, lacking) + 2
    worn = hulls(_table(labels, _WORN)[person.labels])
    return [
        grown(filled([hull - hull.min(0)]), hull.min(0) + person.roi[:2], margin, largest / _CELLS)
        for hull in faces + worn
    ]


def _unseen_face(person: Person, labels: LabelSet) -> list[Area]:
    """Where the head must be: around the hair or the hat; where there is none, the upper end of the box."""
    cell_px = _cell_of(person)
    return [rectangle(np.array(box), cell_px) for box in _heads(person, labels) or [_upper_end(person)]]


def _heads(person: Person, labels: LabelSet) -> list[tuple[int, int, int, int]]:
    """xyxy in the image of the heads that hair and hats of a likely size belong to: one, unless they fall apart."""
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
    """xyxy of the end of a box where the head is: as high as the box is wide, hence all of one that is not upright."""
    x0, y0, x1, y1 = person.box.astype(float).tolist()
    y1 = min(y1, y0 + max(_HEAD_SHARE * (y1 - y0), x1 - x0))
    by = _PERSON_MARGIN * _longest(person)
    return int(x0 - by), int(y0 - by), int(x1 + by) + 1, int(y1 + by) + 1


def _table(labels: LabelSet, names: frozenset[str]) -> NDArray[np.bool_]:
    """(256,): whether a class id is one of the names."""
    table = np.zeros(256, bool)
    table[: labels.num_classes] = [name in names for name in labels.classes]
    return table


def _body(person: Person) -> Area | None:
    """All pixels of a person and what they enclose, grown; None where there are none."""
    import cv2

    contours, _ = cv2.findContours((person.labels > 0).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not contours:
        return None
    margin = _PERSON_MARGIN * _longest(person) + 2
    body = filled([contour[:, 0] for contour in contours], person.labels.shape)
    return grown(body, person.roi[:2], margin, _cell_of(person))


def _cell_of(person: Person) -> float:
    """A person's cells: 10 along somebody upright, whose face is one of them; 4 across a close-up."""
    sides = person.box[2:] - person.box[:2]
    return max(float(sides.min()) / _CELLS, float(sides.max()) / 12)


def _least_face(person: Person) -> float:
    """How long a face is at least, in pixels."""
    sides = person.box[2:] - person.box[:2]
    return max(_LEAST_OF_LONGER * float(sides.max()), _LEAST_OF_SHORTER * float(sides.min()))


def _longest(person: Person) -> float:
    return max(float((person.box[2:] - person.box[:2]).max()), 1.0)


def _side(hull: NDArray[np.int32]) -> int:
    """The longer side of what a hull encloses."""
    return int(np.ptp(hull, 0).max()) + 1
