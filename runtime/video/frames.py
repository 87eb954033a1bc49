"""What is done with each frame before and after its parsing: detect when it is time, propose, remember, smooth."""

import numpy as np

from qanet.results import People
from qanet.runtime.carry import CarriedPeople
from qanet.runtime.detectors.base import Detections
from qanet.runtime.parser import Parser
from qanet.runtime.tracking.cadence import Cadence
from qanet.runtime.tracking.smooth import LabelSmoother
from qanet.runtime.video.sources.base import Frame

MAX_PEOPLE = 32  # a frame's time is bounded: two full batches of the network
MOVING = ("video", "live")  # kinds of sources whose frames follow each other


class FrameWork:
    """The frames of one source, in order: `propose`, then `finish`. See `pipeline.run` for the arguments."""

    def __init__(self, parser: Parser, kind: str, detect_every: int | None, carry: bool, smooth: bool, max_people: int):
        moving = kind in MOVING
        self._parser, self.times = parser, parser.times
        self._people = CarriedPeople(carry) if moving and (carry or smooth) else None
        self._cadence = Cadence(detect_every if moving and carry else 1)
        self._smoother = LabelSmoother() if moving and smooth else None
        self.max_people = max_people
        self.crowded = self.largest_crowd = self.detections = 0

    def wants_detections(self, frame: Frame) -> bool:
        """Whether to call `detect` for this frame; ask once a frame, in order."""
        return self._cadence.wants(frame.index)

    def detect(self, frame: Frame) -> Detections:
        """The people of a frame, as the detector sees them; may run in a thread of its own."""
        self.detections += 1
        return self._parser.detect(frame.image, frame.name if not frame.name.isdigit() else frame.index)

    def propose(self, frame: Frame, found: Detections | None) -> Detections:
        """Whom to parse in a frame; `found` None where the detector did not look."""
        if self._people is None:
            assert found is not None
            return self._limited(found)
        with self.times.stage("track"):
            proposed = self._people.propose(found, (frame.image.shape[0], frame.image.shape[1]))
        return self._limited(proposed)

    def finish(self, result: People, detected: bool) -> People:
        """The frame's result, from what was parsed of whom `propose` gave.

        Args:
            detected: whether the detector looked at the frame.
        """
        if self._people is not None:
            with self.times.stage("carry"):
                self._people.update(result)
                if detected:
                    self._cadence.learn(self._people.surprised)
                if self._people.uneasy:
                    self._cadence.hurry()
        if self._smoother is not None:
            with self.times.stage("smooth"):
                result = self._smoother(result)
        return result

    def _limited(self, found: Detections) -> Detections:
        """The best by score where there are too many."""
        if len(found) <= self.max_people:
            return found
        self.crowded += 1
        self.largest_crowd = max(self.largest_crowd, len(found))
        return found.take(np.argsort(-found.scores, kind="stable")[: self.max_people])
