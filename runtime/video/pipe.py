"""Frames from a pipe, standard input for one: Motion-JPEG in any of its forms."""

import os
import re
import select
import sys
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from qanet.errors import QanetError
from qanet.images import as_bgr
from qanet.runtime.video.frame import DEFAULT_FPS, Frame

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


_START = b"\xff\xd8\xff"
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # in the coded data 0xff 0x00 is a byte, 0xd0..0xd7 restarts
_STANDALONE = {0x01, *range(0xD0, 0xD8)}
_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
MAX_BYTES = 64 * 2**20  # of one picture


class JpegSplitter:
    """Cuts whole JPEGs out of what is fed; what lies between them, such as headers, is passed over.

    Thumbnails inside a picture's metadata are not taken for pictures: segments are skipped by their length.

    Attributes:
        broken: pictures that were cut off, or larger than `MAX_BYTES`.
    """

    def __init__(self) -> None:
        self._data = bytearray()
        self._position = 0  # inside the picture that begins at 0; 0: none has begun
        self._coded = False  # whether the position is in coded data, after a start of scan
        self.broken = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The pictures that are whole by now, in order; to be exhausted before the next call."""
        self._data += data
        while (picture := self._next()) is not None:
            if picture:
                yield picture

    def close(self) -> None:
        """The stream has ended: a picture that has begun is broken."""
        self.broken += self._position > 0
        self._data.clear()

    def _next(self) -> bytes | None:
        """A picture; b"" where one was given up; None where more bytes are wanted."""
        if self._position == 0 and not self._find_start():
            return None
        data = self._data
        while self._position + 2 <= len(data):
            if self._coded:
                found = _MARKER.search(data, self._position)
                if found is None:
                    self._position = max(self._position, len(data) - 1)
                    break
                self._position, self._coded = found.start(), False
            marker = data[self._position + 1]
            if data[self._position] != 0xFF or marker == _SOI:
                return self._give_up()
            if marker == _EOI:
                return self._cut(self._position + 2)
            if marker == 0xFF:  # fill bytes
                self._position += 1
            elif marker in _STANDALONE:
                self._position += 2
            elif self._position + 4 > len(data):
                break
            else:
                self._position += 2 + int.from_bytes(data[self._position + 2 : self._position + 4], "big")
                self._coded = marker == _SOS
        return self._give_up() if len(data) > MAX_BYTES else None

    def _find_start(self) -> bool:
        where = self._data.find(_START)
        if where < 0:
            del self._data[: max(0, len(self._data) - len(_START) + 1)]
            return False
        del self._data[:where]
        self._position, self._coded = 2, False
        return True

    def _cut(self, end: int) -> bytes:
        picture = bytes(self._data[:end])
        del self._data[:end]
        self._position = 0
        return picture

    def _give_up(self) -> bytes:
        """Pass over this picture's start and look for the next one."""
        self.broken += 1
        del self._data[:2]
        self._position = 0
        return b""
