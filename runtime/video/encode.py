"""The overlay as a video file."""

import contextlib
import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qanet.errors import QanetError
from qanet.files import check_room
from qanet.images import quiet_opencv
from qanet.results import ParsingResult
from qanet.runtime.video.frame import Frame
from qanet.runtime.video.sinks import FileSink

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

    def write(self, frame: Frame, result: ParsingResult) -> None:
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


_STALL_S = 10.0  # a server that takes nothing for so long is lost
_END_S = 5.0
_ENCODER = ("-c:v", "libx264", "-preset", "veryfast", "-tune", "zerolatency", "-pix_fmt", "yuv420p")


class RtspPush:
    """Pushes H.264 to an RTSP server that takes streams, such as MediaMTX; ffmpeg itself serves nobody.

    Frames are stamped with the time at which they are written, so that the stream plays at the speed of the parsing.

    Args:
        uri: rtsp://HOST:PORT/NAME.
        fps: of the stream.
        max_width: shrink the overlay to this width; 0 keeps it.
    """

    def __init__(self, uri: str, fps: float, max_width: int = 0):
        self.uri, self.fps, self.max_width = uri, fps, max_width
        self._process: subprocess.Popen[bytes] | None = None
        self._said: IO[bytes] | None = None
        self._size = (0, 0)

    def __enter__(self) -> "RtspPush":
        self._program = shutil.which("ffmpeg")
        if self._program is None:
            raise QanetError(
                f"cannot stream to {self.uri}",
                expected="ffmpeg on the PATH",
                got="none",
                next_command="sudo apt install ffmpeg",
            )
        return self

    def write(self, frame: Frame, result: ParsingResult) -> None:
        """See `Sink.write`."""
        import cv2

        picture = result.draw(max_width=self.max_width)
        if self._process is None:
            height, width = picture.shape[:2]
            self._size = (max(16, width // 2 * 2), max(16, height // 2 * 2))  # encoders want even sides
            self._start()
        if (picture.shape[1], picture.shape[0]) != self._size:
            picture = cv2.resize(picture, self._size, interpolation=cv2.INTER_AREA)
        self._send(memoryview(picture.tobytes()))

    def _start(self) -> None:
        given = ("-f", "rawvideo", "-pixel_format", "bgr24", "-video_size", f"{self._size[0]}x{self._size[1]}")
        timing = ("-framerate", f"{self.fps:g}", "-use_wallclock_as_timestamps", "1")
        made = ("-an", *_ENCODER, "-g", str(max(1, round(2 * self.fps))), "-f", "rtsp", "-rtsp_transport", "tcp")
        assert self._program is not None
        command = (self._program, "-loglevel", "error", "-nostats", *given, *timing, "-i", "pipe:0", *made, self.uri)
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__, with the process
        self._process = subprocess.Popen(  # in a session of its own: Ctrl-C ends us first, then we end it
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._said,
            bufsize=0,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        os.set_blocking(self._process.stdin.fileno(), False)

    def _send(self, data: memoryview) -> None:
        assert self._process is not None and self._process.stdin is not None
        pipe, deadline = self._process.stdin.fileno(), time.monotonic() + _STALL_S
        while data:
            if not select.select([], [pipe], [], max(0.0, deadline - time.monotonic()))[1]:
                raise self._lost(f"nothing taken for {_STALL_S:g} s")
            try:
                data = data[os.write(pipe, data) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                self._wait()
                raise self._lost(self._complaint()) from None

    def _lost(self, got: str) -> QanetError:
        return QanetError(
            f"could not stream to {self.uri}", expected="an RTSP server that takes streams, such as MediaMTX", got=got
        )

    def _complaint(self) -> str:
        """The first thing that ffmpeg said, without its address in memory: what follows are consequences."""
        assert self._said is not None
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        return re.sub(r"^\[[^\]]*\] *", "", lines[0]) if lines else "ffmpeg ended"

    def _wait(self) -> int:
        """ffmpeg's exit status; it is killed where it does not end."""
        assert self._process is not None
        try:
            return self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is None or self._said is None:
            return
        try:
            if self._process.stdin is not None:
                self._process.stdin.close()
            status = self._wait()
            if status != 0 and kind is None:
                raise self._lost(self._complaint())
        finally:
            self._said.close()
