"""The overlay as an RTSP stream, by an ffmpeg process that pushes it to a server."""

import os
import re
import select
import shutil
import subprocess
import tempfile
import time
from types import TracebackType
from typing import IO

from qanet.errors import QanetError
from qanet.results import People
from qanet.runtime.video.sources.base import Frame

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

    def write(self, frame: Frame, result: People) -> None:
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
