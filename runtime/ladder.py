"""The most accurate rung of the ladder that keeps up with a rate on this machine, found by measuring."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.bundle.ladder import LADDER
from qanet.errors import QanetError
from qanet.runtime.detectors.base import Detector
from qanet.runtime.parser import load
from qanet.runtime.video.frame import Source
from qanet.runtime.video.sources import STDIN

FRAMES = 12  # of the input, from its start
ROUNDS = 3


@dataclass(frozen=True)
class Pick:
    """What was measured, and what was taken.

    Attributes:
        fps: rung -> frames a second: detector on every frame and everybody parsed, without decoding and writing.
        people: in a frame, on average.
        enough: whether the rung that was taken reaches the rate.
    """

    rung: str
    fps: dict[str, float]
    people: float
    wanted_fps: float
    enough: bool

    def __str__(self) -> str:
        rates = ", ".join(f"{name} {rate:.1f}" for name, rate in self.fps.items())
        short = "" if self.enough else "; none is fast enough"
        return (
            f"took {self.rung} ({LADDER[self.rung]}) for {self.wanted_fps:g} frames a second{short}: measured {rates}, "
            f"with {self.people:.1f} people a frame"
        )


def pick_rung(frames: Sequence[NDArray[np.uint8]], detector: Detector, wanted_fps: float, **options: Any) -> Pick:
    """Measure every rung on these frames, the rungs in turns, and take the most accurate that reaches the rate.

    A rung's time is the median over the rounds. The detector runs on every frame here; a video needs it less often, so
    the rate that is reached is higher.

    Args:
        frames: (H, W, 3) uint8 BGR each.
        options: of `qanet.load`: device, precision, tail, threads.
    Raises:
        QanetError: no frame to measure on.
    """
    if not frames:
        raise QanetError("no frame to measure on", expected="one or more", got=0)
    parsers = {name: load(name, detector=detector, **options) for name in LADDER}
    seconds: dict[str, list[float]] = {name: [] for name in LADDER}
    counts = []
    for round_number in range(ROUNDS + 1):  # the first warms up
        for name, parser in parsers.items():
            start = time.perf_counter()
            counts = [len(parser.parse(frame, parser.detect(frame, number))) for number, frame in enumerate(frames)]
            if round_number:
                seconds[name].append(time.perf_counter() - start)
    for parser in parsers.values():
        parser.detector = None  # the caller's
        parser.close()
    fps = {name: len(frames) / float(np.median(taken)) for name, taken in seconds.items()}
    enough = [name for name in LADDER if fps[name] >= wanted_fps]
    rung = enough[-1] if enough else max(fps, key=lambda name: fps[name])
    return Pick(rung, fps, float(np.mean(counts)), wanted_fps, bool(enough))


def first_frames(sources: Sequence[Source], uris: Sequence[str]) -> list[NDArray[np.uint8]]:
    """The first frames of the first input, whose iteration is started and left.

    Raises:
        QanetError: an input that cannot be read twice.
    """
    if uris[0] == STDIN:
        raise QanetError("--target-fps cannot measure on standard input", expected="a file, a camera or a stream")
    frames = iter(sources[0])
    try:
        return [frame.image for frame in islice(frames, FRAMES)]
    finally:
        getattr(frames, "close", lambda: None)()
