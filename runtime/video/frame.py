"""What a source of frames is."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from qanet.errors import QanetError
from qanet.images import as_bgr

DEFAULT_FPS = 25.0


@dataclass(frozen=True)
class Frame:
    """One picture: its number, its name (a file's name, or the number), (H, W, 3) uint8 BGR.

    The number counts the source's frames, those that were skipped or dropped too. `captured_s` is when a live frame
    came, by the monotonic clock.
    """

    index: int
    name: str
    image: NDArray[np.uint8]
    captured_s: float | None = None


class Source(Protocol):
    """Iterates frames; `warnings` is complete once it is exhausted.

    Where it applies, `dropped`, `skipped` and `reconnects` count what `Summary` says.
    """

    kind: str  # "video", "folder", "image" or "live"
    fps: float
    expected_frames: int  # 0 where unknown
    warnings: list[str]

    def __iter__(self) -> Iterator[Frame]: ...


class Capture(Protocol):
    """What is asked of a decoder: OpenCV's VideoCapture."""

    def read(self) -> tuple[bool, Any]:
        """Whether there was a frame, and the frame."""
        ...

    def get(self, prop: int) -> float:
        """A property by OpenCV's number."""
        ...

    def release(self) -> None:
        """Close it."""
        ...


def read_frame(capture: Capture) -> NDArray[np.uint8] | None:
    """The next frame as BGR; None where there is none or it is broken."""
    import cv2

    try:
        ok, image = capture.read()
        return as_bgr(image) if ok and image is not None else None
    except (cv2.error, QanetError):
        return None


def frame_rate(capture: Capture) -> float:
    """Frames a second; 25 where the stream tells 0, NaN or nonsense."""
    import cv2

    rate = capture.get(cv2.CAP_PROP_FPS)
    return float(rate) if 0 < rate < 1000 else DEFAULT_FPS
