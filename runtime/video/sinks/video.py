"""The overlay as a video file."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qanet.errors import QanetError
from qanet.files import check_room
from qanet.images import quiet_opencv
from qanet.results import People
from qanet.runtime.video.sinks.base import FileSink
from qanet.runtime.video.sources.base import Frame

if TYPE_CHECKING:
    import cv2

CODECS = {".webm": "VP80", ".mp4": "mp4v", ".avi": "MJPG"}
_LEAST_SIDE_PX = 16
_SPARE_BYTES = 64 * 2**10  # what must still fit at the end: more than an encoder's buffer
_FREE_BYTES = 16 * 2**20  # below this a disk counts as full: encoders fail silently when it runs out


class VideoFileSink(FileSink):
    """An overlay video; .webm (VP8) plays in every browser."""

    def __init__(self, path: Path, fps: float, max_width: int = 0):
        super().__init__(path)
        if path.suffix.lower() not in CODECS:
            raise QanetError(f"unknown video format {path.name}", expected=", ".join(CODECS), got=path.suffix)
        self.fps, self.max_width = fps, max_width
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self._frames = 0

    def write(self, frame: Frame, result: People) -> None:
        """See `Sink.write`."""
        import cv2

        picture = result.draw(max_width=self.max_width)
        if self._writer is None:
            self._open(picture)
        assert self._writer is not None
        if (picture.shape[1], picture.shape[0]) != self._size:
            picture = cv2.resize(picture, self._size, interpolation=cv2.INTER_AREA)
        if self._frames % 32 == 0:
            check_room(self.path.parent, _FREE_BYTES)
        with quiet_opencv():
            self._writer.write(picture)
        self._frames += 1

    def _open(self, picture: NDArray[np.uint8]) -> None:
        import cv2

        height, width = picture.shape[:2]
        # encoders want even sides, and VP8 fails below some size
        self._size = (max(_LEAST_SIDE_PX, width // 2 * 2), max(_LEAST_SIDE_PX, height // 2 * 2))
        codec = cv2.VideoWriter.fourcc(*CODECS[self.path.suffix.lower()])
        with _quiet_stderr():
            self._writer = cv2.VideoWriter(str(self._aside), codec, self.fps, self._size)
        if not self._writer.isOpened():
            raise QanetError(f"cannot encode {self.path}", expected="an OpenCV with this codec", got=self.path.suffix)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            with quiet_opencv():
                self._writer.release()
        if kind is None:
            lack = QanetError(f"{self.path} has no frame") if self._writer is None else self._incomplete()
            if lack is not None:  # leave no empty or broken video behind
                super().__exit__(type(lack), lack, None)
                if self._writer is None:
                    return  # interrupted before the first frame: there is nothing to keep
                raise lack
        super().__exit__(kind, error, trace)

    def _incomplete(self) -> QanetError | None:
        """What is wrong with the file that was written: encoders do not say that the disk is full."""
        import cv2

        with quiet_opencv():
            capture = cv2.VideoCapture(str(self._aside))
            found = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
            capture.release()
        got = f"{max(found, 0)} on the disk"
        if found >= 0.98 * self._frames - 1:  # WebM tells its duration, which may be right where its end is lost
            try:
                size = self._aside.stat().st_size
                with self._aside.open("rb+") as file:
                    file.seek(size)
                    file.write(bytes(_SPARE_BYTES))
                os.truncate(self._aside, size)
                return None
            except OSError as error:
                got = str(error.strerror)
        return QanetError(
            f"could not write {self.path}",
            expected=f"a video of {self._frames} frames",
            got=got,
            next_command="free some space or choose another place",
        )


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """FFmpeg inside OpenCV writes a remark about codec tags straight to file descriptor 2; no user needs it."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(nowhere)
        os.close(kept)
