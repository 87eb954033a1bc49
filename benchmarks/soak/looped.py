"""A clip that starts again when it ends, until enough frames have come."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

from qanet.errors import QanetError
from qanet.runtime.video.frame import Frame, Source


class Looped:
    """A source that opens a clip anew for every turn, so that a handle left open each time is seen.

    Args:
        open_clip: gives a fresh source of the clip.
        frames: to give in all.
    """

    def __init__(self, open_clip: Callable[[], Source], frames: int):
        self._open, self._frames = open_clip, frames
        first = open_clip()
        self.kind, self.fps, self.warnings = first.kind, first.fps, list[str]()
        self.expected_frames = frames
        self.turns = 0

    def __iter__(self) -> Iterator[Frame]:
        given = 0
        while given < self._frames:
            before = given
            frames: Any = iter(self._open())
            self.turns += 1
            with closing(frames):
                for frame in frames:
                    yield replace(frame, index=given, name=str(given))
                    given += 1
                    if given == self._frames:
                        return
            if given == before:
                raise QanetError("the clip has no frame", expected="one or more a turn", got=f"turn {self.turns}")
