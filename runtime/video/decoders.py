"""Which decoder takes a file: the fastest of those that give the same pictures, measured on its first frames."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from qanet.errors import QanetError
from qanet.images import quiet_opencv
from qanet.runtime.video.frame import Capture, read_frame
from qanet.runtime.video.hardware import GStreamer, Nvidia


class Decoder(Protocol):
    """A way to decode a file."""

    name: str

    def lack(self) -> str | None:
        """Why this machine has it not; None where it has."""
        ...

    def open(self, path: Path) -> Capture | None:
        """The file, opened; None where this decoder cannot."""
        ...


class Software:
    """On every machine; the one that the others are compared with."""

    name = "software"

    def lack(self) -> str | None:
        """None: OpenCV's wheels come with FFmpeg."""
        return None

    def open(self, path: Path) -> Capture | None:
        """See `Decoder.open`."""
        import cv2

        with quiet_opencv():
            capture = cv2.VideoCapture(str(path))
        if capture.isOpened():
            return capture
        capture.release()
        return None


KNOWN: tuple[Decoder, ...] = (Software(), GStreamer(), Nvidia())
NAMES = tuple(decoder.name for decoder in KNOWN)
_FRAMES = 30
_SAME_LEVELS = 8.0  # mean difference of two decoders' pictures; conversions to RGB differ by less


@dataclass(frozen=True)
class Choice:
    """A decoder, and why.

    Attributes:
        decoder: the one to take.
        frame_ms: decoder's name -> milliseconds a frame, of those that were measured.
        left_out: decoder's name -> why it was not a candidate.
    """

    decoder: Decoder
    frame_ms: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """For the summary."""
        times = {name: round(ms, 3) for name, ms in self.frame_ms.items()}
        return {"name": self.decoder.name, "frame_ms": times, "left_out": self.left_out}


def choose(path: Path, wanted: str = "auto", known: Sequence[Decoder] = KNOWN) -> Choice:
    """The decoder for a file.

    Args:
        path: of the file; "auto" reads its first frames once with each decoder, where there are several.
        wanted: a decoder's name, or "auto".
    Raises:
        QanetError: an unknown decoder, or one that this machine has not.
    """
    if wanted != "auto":
        return Choice(_named(wanted, known))
    left_out = {decoder.name: lack for decoder in known if (lack := decoder.lack()) is not None}
    there = [decoder for decoder in known if decoder.name not in left_out]
    software = there[0]
    if len(there) == 1:
        return Choice(software, {}, left_out)
    frame_ms, expected = {}, None
    for decoder in there:
        measured = _measure(decoder, path)
        if measured is None:
            left_out[decoder.name] = "cannot decode this file"
            continue
        frame_ms[decoder.name], pictures = measured
        expected = pictures if decoder is software else expected
        if expected is not None and (difference := _difference(pictures, expected)) is not None:
            left_out[decoder.name] = difference
    candidates = [decoder for decoder in there if decoder.name in frame_ms and decoder.name not in left_out]
    best = min(candidates, key=lambda decoder: frame_ms[decoder.name], default=software)
    return Choice(best, frame_ms, left_out)


def _named(wanted: str, known: Sequence[Decoder]) -> Decoder:
    for decoder in known:
        if decoder.name == wanted:
            if (lack := decoder.lack()) is not None:
                raise QanetError(
                    f"no {wanted} decoder here", expected="a machine that has it", got=lack, next_command="qanet doctor"
                )
            return decoder
    raise QanetError("unknown decoder", expected=f"auto, {', '.join(d.name for d in known)}", got=wanted)


def _measure(decoder: Decoder, path: Path) -> tuple[float, list[NDArray[np.uint8]]] | None:
    """Milliseconds a frame and the first and last picture; None where there are none.

    The first frame is not timed: it pays for the start, which a whole file pays once.
    """
    capture = decoder.open(path)
    if capture is None:
        return None
    try:
        first = last = read_frame(capture)
        if first is None:
            return None
        count, start = 0, time.perf_counter()
        while count < _FRAMES - 1 and (image := read_frame(capture)) is not None:
            last, count = image, count + 1
        elapsed_ms = (time.perf_counter() - start) * 1e3
    finally:
        capture.release()
    assert last is not None
    return elapsed_ms / max(count, 1), [first, last]


def _difference(pictures: list[NDArray[np.uint8]], expected: list[NDArray[np.uint8]]) -> str | None:
    """What tells a decoder's pictures from the software's; None where nothing does."""
    for picture, other in zip(pictures, expected):
        if picture.shape != other.shape:  # such as a rotation that is not obeyed
            return f"its pictures are {picture.shape[1]}x{picture.shape[0]}, not {other.shape[1]}x{other.shape[0]}"
        levels = float(np.abs(picture.astype(np.int16) - other).mean())
        if levels > _SAME_LEVELS:
            return f"its pictures differ by {levels:.0f} levels on average"
    return None
