"""What is done with each frame: detect when it is time, propose, parse, remember, smooth."""

import numpy as np

from qanet.results import ParsingResult
from qanet.runtime.carry import CarriedPeople
from qanet.runtime.detectors.base import Detections
from qanet.runtime.parser import Parser
from qanet.runtime.tracking.cadence import Cadence
from qanet.runtime.tracking.smooth import LabelSmoother
from qanet.runtime.video.source import Frame

MAX_PEOPLE = 32  # a frame's time is bounded: two full batches of the network
MOVING = ("video", "live")  # kinds of sources whose frames follow each other


class FrameWork:
    """Parses the frames of one source, in order. See `pipeline.run` for the arguments."""

    def __init__(
        self, parser: Parser, kind: str, detect_every: int | None, carry: bool, smooth: bool, max_people: int
    ):  # fmt: skip
        moving = kind in MOVING
        self._parser = parser
        self._people = CarriedPeople(carry) if moving and (carry or smooth) else None
        self._cadence = Cadence(detect_every if moving and carry else 1)
        self._smoother = LabelSmoother() if moving and smooth else None
        self._max_people = max_people
        self.crowded = self.largest_crowd = self.detections = 0

    def wants_detections(self, frame: Frame) -> bool:
        """Whether to call `detect` for this frame; ask once a frame, in order."""
        return self._cadence.wants(frame.index)

    def detect(self, frame: Frame) -> Detections:
        """The people of a frame, as the detector sees them; may run in a thread of its own."""
        self.detections += 1
        return self._parser.detect(frame.image, frame.name if not frame.name.isdigit() else frame.index)

    def parse(self, frame: Frame, found: Detections | None) -> ParsingResult:
        """The frame's result; `found` None where the detector did not look."""
        times, image_hw = self._parser.times, (frame.image.shape[0], frame.image.shape[1])
        if self._people is None:
            assert found is not None
            return self._parser.parse(frame.image, self._limited(found))
        with times.stage("track"):
            proposed = self._people.propose(found, image_hw)
        result = self._parser.parse(frame.image, self._limited(proposed))
        with times.stage("carry"):
            self._people.update(result)
            if found is not None:
                self._cadence.learn(self._people.surprised)
            if self._people.uneasy:
                self._cadence.hurry()
        if self._smoother is not None:
            with times.stage("smooth"):
                result = self._smoother(result)
        return result

    def _limited(self, found: Detections) -> Detections:
        """The best by score where there are too many."""
        if len(found) <= self._max_people:
            return found
        self.crowded += 1
        self.largest_crowd = max(self.largest_crowd, len(found))
        return found.take(np.argsort(-found.scores, kind="stable")[: self._max_people])
