"""What passes through a run: a frame, the source that yields it, and the decoder below the source."""

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
    """One picture of a source.

    Attributes:
        index: number of the frame in its source; skipped and dropped frames are counted too.
        name: a file's name, or the number.
        image: (H, W, 3) uint8 BGR.
        captured_s: when a live frame arrived, by the monotonic clock.
        time_s: seconds since the first frame, as the file says or the camera delivered; None for still images.
    """

    index: int
    name: str
    image: NDArray[np.uint8]
    captured_s: float | None = None
    time_s: float | None = None


class Source(Protocol):
    """Iterates frames; `warnings` is complete once it is exhausted.

    Where they apply, `dropped`, `skipped` and `reconnects` count as described in `Summary`.
    """

    kind: str  # "video", "folder", "image" or "live"
    fps: float
    expected_frames: int  # 0 if unknown
    warnings: list[str]

    def __iter__(self) -> Iterator[Frame]: ...


class Capture(Protocol):
    """An opened video or camera, with the interface of OpenCV's VideoCapture.

    A capture may have an attribute `ended`: whether no frame will follow. Without it, a failed `read` can be a broken
    frame or the end.
    """

    def read(self) -> tuple[bool, Any]:
        """Whether there was a frame, and the frame."""
        ...

    def get(self, prop: int) -> float:
        """A property by its number in OpenCV; 0 if unknown."""
        ...

    def release(self) -> None:
        """Close it."""
        ...


def read_frame(capture: Capture) -> NDArray[np.uint8] | None:
    """The next frame as (H, W, 3) uint8 BGR; None if it is broken or there is none."""
    import cv2

    try:
        ok, image = capture.read()
        return as_bgr(image) if ok and image is not None else None
    except (cv2.error, QanetError):
        return None


def frame_rate(capture: Capture) -> float:
    """Frames per second; 25 if the capture reports 0, NaN or an impossible rate."""
    import cv2

    rate = capture.get(cv2.CAP_PROP_FPS)
    return float(rate) if 0 < rate < 1000 else DEFAULT_FPS


def last_time_s(capture: Capture) -> float:
    """Seconds from the start of the video to the frame that was read last; 0 if unknown."""
    import cv2

    return capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
