"""Detectors that give faces: of the people that another one finds, or straight from a face detector."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qanet.errors import QanetError
from qanet.geometry import suppress
from qanet.labels import CELEBAMASK19, LabelSet
from qanet.runtime.detectors.base import NOBODY, Detections, Detector
from qanet.runtime.faces.framing import MIN_SIDE_PX, frame_of_face, guess_frames
from qanet.runtime.faces.heads import frame_of_person, has_heads

if TYPE_CHECKING:
    from qanet.runtime.parser import Parser

FACE_SETS = (CELEBAMASK19,)  # label sets of faces; every other one is of people
HEAD_MODEL = "ccp13-lite0"
GUESS = "guess"  # instead of a head model
_SAME_FACE_IOU = 0.5  # of two frames: people in front of each other may show one face


def is_of_faces(labels: LabelSet) -> bool:
    """Whether a bundle with these labels parses faces and not people."""
    return labels in FACE_SETS


class HeadDetector:
    """The frame around the face of each person; who shows no face is not there.

    Args:
        people: finds the people.
        parser: parses them, to tell hair and skin from clothes; None: a guess from the box, see `guess_frames`.
    Raises:
        QanetError: the parser's labels do not tell where a face is.
    """

    def __init__(self, people: Detector, parser: "Parser | None"):
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
        found = self.people.detect(image, frame)
        if len(found) == 0:
            return NOBODY
        if self.parser is None:
            return _distinct(guess_frames(found.boxes), found.scores, image)
        labels = self.parser.bundle.labels
        people = self.parser.every_box([(image, found)])[0]
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
        found = self.faces.detect(image, frame)
        boxes = np.array([frame_of_face(box) for box in found.boxes], np.float32).reshape(-1, 4)
        return _distinct(boxes, found.scores, image)


def open_face_detector(path: Path, score_threshold: float, threads: int | None = None) -> FaceDetector:
    """Faces from an ONNX file of a known form, see `OnnxDetector`."""
    from qanet.runtime.detectors.onnx import OnnxDetector

    return FaceDetector(OnnxDetector(path, score_threshold, threads))


def open_head_detector(
    people: Detector, head_model: str = HEAD_MODEL, device: str = "auto", threads: int | None = None
) -> HeadDetector:
    """Heads of people; `head_model` names a bundle that parses people, or is GUESS."""
    from qanet.runtime.parser import load

    return HeadDetector(people, None if head_model == GUESS else load(head_model, device, threads=threads))


def _distinct(boxes: NDArray[np.float32], scores: NDArray[np.float32], image: NDArray[np.uint8]) -> Detections:
    """Frames that are large enough and show some of the image, each face once."""
    height, width = image.shape[:2]
    inside = np.minimum(boxes[:, 2:], [width, height]) - np.maximum(boxes[:, :2], 0)
    kept = (inside >= 1).all(1) & (boxes[:, 2] - boxes[:, 0] >= MIN_SIDE_PX)
    boxes, scores = boxes[kept], scores[kept]
    chosen = suppress(boxes, scores, _SAME_FACE_IOU)
    return Detections(boxes[chosen], scores[chosen])
