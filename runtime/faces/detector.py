"""Detectors of faces: from the parsing of people, or from a face detector, framed as face networks expect them.

A face lies in its frame as in CelebAMask-HQ, whose pictures are aligned and shown whole to the network. The numbers are
medians over 267 of its pictures: the box around skin, eyes, nose, mouth and ears, as a share of the picture's side (the
10th and the 90th percentiles of its height are 0.65 and 0.82).
"""

from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qanet.bundle import Bundle
from qanet.errors import QanetError
from qanet.geometry import suppress
from qanet.labels import CELEBAMASK19, LabelSet
from qanet.results import Person
from qanet.runtime.detectors.base import NOBODY, Detections, Detector

FACE_SETS = (CELEBAMASK19,)  # label sets of faces; every other one is of people
HEAD_MODEL = "ccp13-lite0"
GUESS = "guess"  # instead of a head model
_SAME_FACE_IOU = 0.5  # of two frames: people in front of each other may show one face
FACE_HEIGHT = 0.742
FACE_WIDTH = 0.602
FACE_TOP = 0.188  # from the picture's upper edge
HAIR_TOP = 0.03
HEAD_WIDTH = 0.859  # with the hair
MIN_SIDE_PX = 16  # of a frame: the face in it is 10 pixels wide, too few to show an eye
_FACE = frozenset({"face", "head"})
_HAIR = frozenset({"hair", "hat", "cap/hat", "helmet", "headwear"})
_GLASSES = frozenset({"glasses", "sunglasses", "eyewear", "eyeglasses"})
_SKIN = frozenset({"skin"})
_NOT_WORN_BELOW = frozenset({"background", "bag", "scarf", "earrings", "necklace"})  # no collar
_MIN_FACE_PX = 12  # of skin and glasses: fewer are a speck, or the ear of a person seen from behind
_COLLAR_ROW = 0.3  # of the widest row of clothes: the first so wide is the collar, and not a raised sleeve
_SIDE_OF_HAIR = 0.35  # of the hair's width: how far beside it the face may reach
_MAX_ASPECT = 2.2  # head and neck are not higher than this many times their width: what is lower is a chest
_MAX_SHARE = 0.6  # of the person's longer side


def is_of_faces(labels: LabelSet) -> bool:
    """Whether a bundle with these labels parses faces and not people."""
    return labels in FACE_SETS


class PeopleParser(Protocol):
    """The parts of `qanet.runtime.parser.Parser` that a head detector needs."""

    bundle: Bundle

    def every_box(self, image: NDArray[np.uint8], found: Detections) -> list[Person]:
        """One person per box."""
        ...


class HeadDetector:
    """Frames around the faces of people; a person who shows no face gives none.

    Args:
        people: finds the people.
        parser: parses the people to locate hair, skin and clothes; None: a guess from the box, see `guess_frames`.
    Raises:
        QanetError: the parser's labels have no classes that locate a face.
    """

    def __init__(self, people: Detector, parser: PeopleParser | None):
        if parser is not None and not has_heads(parser.bundle.labels):
            raise QanetError(
                f"{parser.bundle.name} does not tell where a head is",
                expected="a class face, or hair and skin",
                got=", ".join(parser.bundle.labels.classes),
                next_command=f"--head-model {HEAD_MODEL}",
            )
        self.people, self.parser = people, parser
        self.name = f"heads by {parser.bundle.name if parser else 'a guess'}, people by {people.name}"

    def detect(self, image: NDArray[np.uint8], frame: int | str = 0) -> Detections:
        """See `Detector.detect`; a face has its person's score."""
        found = self.people.detect(image, frame).usable()
        if len(found) == 0:
            return NOBODY
        if self.parser is None:
            return _distinct(guess_frames(found.boxes), found.scores, image)
        labels = self.parser.bundle.labels
        people = self.parser.every_box(image, found)
        frames = [frame_of_person(person, labels) for person in people]
        seen = [k for k, where in enumerate(frames) if where is not None]
        boxes = np.array([frames[k] for k in seen], np.float32).reshape(-1, 4)
        return _distinct(boxes, found.scores[seen], image)


class FaceDetector:
    """A face detector's boxes, framed as face networks want them."""

    def __init__(self, faces: Detector):
        self.faces = faces
        self.name = f"faces by {faces.name}"

    def detect(self, image: NDArray[np.uint8], frame: int | str = 0) -> Detections:
        """See `Detector.detect`."""
        found = self.faces.detect(image, frame).usable()
        boxes = np.array([frame_of_face(box) for box in found.boxes], np.float32).reshape(-1, 4)
        return _distinct(boxes, found.scores, image)


def _distinct(boxes: NDArray[np.float32], scores: NDArray[np.float32], image: NDArray[np.uint8]) -> Detections:
    """Frames that are large enough and show some of the image, each face once."""
    height, width = image.shape[:2]
    inside = np.minimum(boxes[:, 2:], [width, height]) - np.maximum(boxes[:, :2], 0)
    kept = (inside >= 1).all(1) & (boxes[:, 2] - boxes[:, 0] >= MIN_SIDE_PX)
    boxes, scores = boxes[kept], scores[kept]
    chosen = suppress(boxes, scores, _SAME_FACE_IOU)
    return Detections(boxes[chosen], scores[chosen])


def frame_of_face(face: ArrayLike) -> NDArray[np.float32]:
    """The square to parse around a face.

    Args:
        face: (4,) xyxy pixels, hairline to chin and ear to ear, as face detectors give it; a face in profile is
            narrower, so the longer of the two sides decides.
    Returns:
        (4,) float32 xyxy; may reach outside the image.
    """
    x0, y0, x1, y1 = np.asarray(face, np.float64)
    side = max((y1 - y0) / FACE_HEIGHT, (x1 - x0) / FACE_WIDTH)
    middle = (y0 + y1) / 2 + side * (0.5 - FACE_TOP - FACE_HEIGHT / 2)
    return _square((x0 + x1) / 2, middle, side)


def frame_of_head(top: float, collar: float, face_x: float, across: tuple[float, float]) -> NDArray[np.float32]:
    """The square to parse around a head.

    In those pictures the hair begins just below the upper edge, the lower edge cuts the neck, and the head is inside.

    Args:
        top, collar: rows of the hair's top and of the neck's end.
        face_x: column of the middle of the face.
        across: columns where hair and face begin and end.
    Returns:
        (4,) float32 xyxy; may reach outside the image.
    """
    side = max((collar - top) / (1 - HAIR_TOP), (across[1] - across[0]) / HEAD_WIDTH)
    centre_x = min(max(face_x, across[1] - side / 2), across[0] + side / 2)
    return _square(centre_x, top + side * (0.5 - HAIR_TOP), side)


def guess_frames(boxes: ArrayLike) -> NDArray[np.float32]:
    """Where the heads are if people stand upright and look out of the middle of the upper edge of their boxes.

    A head is 2/15 of a person's height; where only a head and shoulders are in the box, half of its width.

    Args:
        boxes: (N, 4) xyxy pixels of people.
    Returns:
        (N, 4) float32 squares.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    width, height = (boxes[:, 2:] - boxes[:, :2]).T
    side = np.maximum(height * (2 / 15), np.minimum(width / 2, height / 3)) / (FACE_TOP + FACE_HEIGHT - HAIR_TOP)
    centre = np.stack([boxes[:, [0, 2]].mean(1), boxes[:, 1] + side * (0.5 - HAIR_TOP)], 1)
    return np.concatenate([centre - side[:, None] / 2, centre + side[:, None] / 2], 1).astype(np.float32)


def _square(x: float, y: float, side: float) -> NDArray[np.float32]:
    half = side / 2
    return np.array([x - half, y - half, x + half, y + half], np.float32)


def has_heads(labels: LabelSet) -> bool:
    """Whether a label set locates faces: by a class face, or by skin and hair."""
    names = set(labels.classes)
    return bool(names & _FACE) or bool(names & _SKIN and names & _HAIR)


def frame_of_person(person: Person, labels: LabelSet) -> NDArray[np.float32] | None:
    """The square around a person's face, (4,) float32 xyxy image pixels; None where no face is seen.

    A person seen from behind has none: hair alone is no face.
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
    """The frame from skin below the hair's top, above the collar and near the hair; other skin is arms and legs.

    Args:
        skin, hair, clothes: (h, w) of the region; skin includes glasses, hair includes hats.
    """
    top_of = _largest(hair)
    if top_of is None:
        return None  # a bald head cannot be distinguished from an arm
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
