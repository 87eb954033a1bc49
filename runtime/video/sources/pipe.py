"""Frames from a pipe, standard input for one: Motion-JPEG in any of its forms."""

import os
import select
import sys
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from qanet.errors import QanetError
from qanet.images import as_bgr
from qanet.runtime.video.sources.base import DEFAULT_FPS, Frame
from qanet.runtime.video.sources.mjpeg import JpegSplitter

_READ_BYTES = 2**18
_LOOK_S = 0.2  # how long a pipe that is silent is waited for before a look at `stop`
_NO_JPEG_BYTES = 16 * 2**20  # of something else, before it is told
_NEXT = "ffmpeg -i INPUT -f mjpeg -q:v 3 - | qanet parse -"


class PipeSource:
    """JPEGs from a file descriptor, each of them a frame: whoever writes is held back, nothing is lost.

    Args:
        descriptor: open for reading; left open.
        name: for messages.
        fps: of the pictures, which do not tell it.
    """

    kind = "video"
    expected_frames = 0

    def __init__(self, descriptor: int, name: str, fps: float = DEFAULT_FPS):
        self._descriptor, self.name, self.fps = descriptor, name, fps
        self.warnings: list[str] = []
        self.skipped = 0
        self._stopped = False

    def __iter__(self) -> Iterator[Frame]:
        splitter, index, received, undecodable = JpegSplitter(), 0, 0, 0
        for data in self._pieces():
            received += len(data)
            for picture in splitter.feed(data):
                image = _decode(picture)
                undecodable += image is None
                self.skipped = splitter.broken + undecodable
                if image is not None:
                    yield Frame(index + self.skipped, str(index + self.skipped), image)
                    index += 1
            if index == 0 and received > _NO_JPEG_BYTES:
                break
        splitter.close()
        self.skipped = splitter.broken + undecodable
        if self.skipped:
            self.warnings.append(f"{self.name}: broken frames skipped: {self.skipped}")
        if index == 0 and not self._stopped:
            got = f"{received} bytes without a whole JPEG" if received else "nothing"
            raise QanetError(f"no frame on {self.name}", expected="Motion-JPEG", got=got, next_command=_NEXT)

    def _pieces(self) -> Iterator[bytes]:
        while not self._stopped:
            if not select.select([self._descriptor], [], [], _LOOK_S)[0]:
                continue
            data = os.read(self._descriptor, _READ_BYTES)
            if not data:
                return
            yield data

    def stop(self) -> None:
        """End the iteration soon, from another thread."""
        self._stopped = True


def _decode(picture: bytes) -> NDArray[np.uint8] | None:
    import cv2

    try:
        image = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
        return None if image is None else as_bgr(image)
    except (cv2.error, QanetError):
        return None


def open_stdin(fps: float = DEFAULT_FPS) -> PipeSource:
    """Standard input.

    Raises:
        QanetError: it is closed, or a terminal, where nobody types JPEGs.
    """
    try:
        descriptor = sys.stdin.fileno()
    except (AttributeError, OSError, ValueError):
        raise QanetError("standard input is closed", expected="Motion-JPEG", next_command=_NEXT) from None
    if os.isatty(descriptor):
        raise QanetError("nothing is piped in", expected="Motion-JPEG", got="a terminal", next_command=_NEXT)
    return PipeSource(descriptor, "standard input", fps)
