"""From a person's parsing to the frame around their face."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from qanet.labels import LabelSet
from qanet.results import Person
from qanet.runtime.faces.framing import MIN_SIDE_PX, frame_of_face, frame_of_head

_FACE = frozenset({"face", "head"})
_HAIR = frozenset({"hair", "hat", "cap/hat", "helmet", "headwear"})
_GLASSES = frozenset({"glasses", "sunglasses", "eyewear", "eyeglasses"})
_SKIN = frozenset({"skin"})
_NOT_WORN_BELOW = frozenset({"background", "bag", "scarf", "earrings", "necklace"})  # no collar
_MIN_FACE_PX = 12  # of skin, glasses and all: fewer are a speck, or the ear of somebody who looks away
_COLLAR_ROW = 0.3  # of the widest row of clothes: the first so wide is the collar, and not a raised sleeve
_SIDE_OF_HAIR = 0.35  # of the hair's width: how far beside it the face may reach
_MAX_ASPECT = 2.2  # head and neck are not higher than this many times their width: what is lower is a chest
_MAX_SHARE = 0.6  # of the person's longer side


def has_heads(labels: LabelSet) -> bool:
    """Whether a label set tells where a face is: a class of its own, or skin and hair."""
    names = set(labels.classes)
    return bool(names & _FACE) or bool(names & _SKIN and names & _HAIR)


def frame_of_person(person: Person, labels: LabelSet) -> NDArray[np.float32] | None:
    """The square around a person's face, (4,) float32 xyxy image pixels; None where no face is seen.

    Nobody seen from behind has one: hair alone is no face.
    """
    face, hair, clothes, is_exact = _masks(labels)
    if person.labels.size == 0:
        return None
    kinds = (face[person.labels], hair[person.labels], clothes[person.labels])
    frame = _of_face_class(kinds[0]) if is_exact else _of_skin(*kinds)
    if frame is None:
        return None
    x0, y0, x1, y1 = person.box.tolist()
    side = float(frame[2] - frame[0])
    if not MIN_SIDE_PX <= side <= _MAX_SHARE * max(x1 - x0, y1 - y0):
        return None
    return frame + np.array([person.roi[0], person.roi[1]] * 2, np.float32)


def _of_face_class(face: NDArray[np.bool_]) -> NDArray[np.float32] | None:
    """Of the largest piece of pixels that are a face by their class."""
    where = _largest(face)
    return None if where is None else frame_of_face(where)


def _of_skin(
    skin: NDArray[np.bool_], hair: NDArray[np.bool_], clothes: NDArray[np.bool_]
) -> NDArray[np.float32] | None:
    """Skin is everywhere: of the head is what lies below the hair's top, above the collar, and not far beside.

    Args:
        skin, hair, clothes: (h, w) of the region; skin includes glasses, hair includes hats.
    """
    top_of = _largest(hair)
    if top_of is None:
        return None  # a bald head is skin like an arm: there is no telling them apart here
    left, top, right, _ = top_of
    margin = _SIDE_OF_HAIR * (right - left) + 1
    columns = slice(max(0, int(left - margin)), int(right + margin) + 1)
    collar = _collar(clothes[:, columns], int(top))
    window = skin[int(top) : collar, columns]
    rows, across = np.nonzero(window)
    if len(across) < _MIN_FACE_PX:
        return None
    low, high = np.percentile(across, (5, 95)) + (0.0, 1.0)
    width = max(high - low, 0.5 * (right - left))
    bottom = min(top + rows.max() + 1, top + _MAX_ASPECT * width)
    beside = np.flatnonzero((window | hair[int(top) : collar, columns]).any(0))
    return frame_of_head(
        top, bottom, columns.start + (low + high) / 2, (columns.start + beside[0], columns.start + beside[-1] + 1)
    )


def _collar(clothes: NDArray[np.bool_], top: int) -> int:
    """The first row below the head's top where clothes are wide; the last row where there are none."""
    width = clothes.sum(1)
    width[:top] = 0
    wide = np.flatnonzero(width > _COLLAR_ROW * max(int(width.max()), 1))
    return int(wide[0]) if len(wide) else len(width)


def _largest(mask: NDArray[np.bool_]) -> tuple[float, float, float, float] | None:
    """xyxy of the largest connected piece; None where nothing is."""
    import cv2

    count, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if count < 2:
        return None
    x, y, width, height, area = stats[1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))].tolist()
    return (x, y, x + width, y + height) if area >= _MIN_FACE_PX else None


@lru_cache
def _masks(labels: LabelSet) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_], bool]:
    """(256,) tables class -> whether it is face (or skin), hair, clothes; and whether the face is a class by itself."""
    is_exact = bool(set(labels.classes) & _FACE)
    face = (_FACE if is_exact else _SKIN) | _GLASSES
    tables = np.zeros((3, 256), bool)
    for class_id, name in enumerate(labels.classes):
        tables[0, class_id] = name in face
        tables[1, class_id] = name in _HAIR
        tables[2, class_id] = name not in face | _HAIR | _NOT_WORN_BELOW
    return tables[0], tables[1], tables[2], is_exact
