"""The overlay as a video: a file written by PyAV, or an RTSP stream pushed by ffmpeg."""

import contextlib
import os
import re
import select
import shutil
import subprocess
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from qanet.errors import QanetError
from qanet.files import written_aside
from qanet.results import People
from qanet.runtime.video.decoders import has_pyav
from qanet.runtime.video.frame import Frame

_H264 = ("libx264", "libopenh264", "mpeg4")
# suffix -> codecs, the first available is used; browsers play .mp4, .mov and .webm
CODECS = {".mp4": _H264, ".mov": _H264, ".mkv": _H264, ".webm": ("libvpx-vp9", "libvpx"), ".avi": ("mjpeg",)}
_OPTIONS = {
    "libx264": {"preset": "veryfast", "crf": "20"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "row-mt": "1", "crf": "30", "b": "0"},
    "libvpx": {"deadline": "realtime", "cpu-used": "8", "crf": "10", "b": "8M"},
    "mjpeg": {"qmin": "3", "qmax": "3"},
    "mpeg4": {"qmin": "3", "qmax": "3"},
}
_LEAST_SIDE_PX = 16
_TICKS = 90_000  # per second, of the timestamps
_BT709 = 1  # colour space, primaries and transfer, as players assume for HD; stated in every file except .avi

_STALL_S = 10.0  # longest wait for an RTSP server to take data
_END_S = 5.0
_RTSP_ENCODER = ("-c:v", "libx264", "-preset", "veryfast", "-tune", "zerolatency", "-pix_fmt", "yuv420p")


class VideoFileSink:
    """An overlay video. Frames keep the times of the source, so a variable frame rate is kept, except in .avi.

    Args:
        path: .mp4, .mov or .mkv (H.264), .webm (VP9) or .avi (Motion-JPEG).
        fps: frames per second, used for frames without a time.
        max_width: shrink the overlay to this width; 0 keeps it.
    """

    def __init__(self, path: Path, fps: float, max_width: int = 0):
        if path.suffix.lower() not in CODECS:
            raise QanetError(f"unknown video format {path.name}", expected=", ".join(CODECS), got=path.suffix)
        self.path, self.fps, self.max_width = path, fps, max_width
        self._stack = contextlib.ExitStack()
        self._container: Any = None
        self._frames = 0
        self._last_pts = -1

    def __enter__(self) -> "VideoFileSink":
        if not has_pyav():
            raise QanetError(f"cannot write {self.path}", expected="PyAV", got="none", next_command="pip install av")
        self._aside = self._stack.enter_context(written_aside(self.path))
        return self

    def write(self, frame: Frame, result: People) -> None:
        """See `Sink.write`."""
        import av

        picture = result.draw(max_width=self.max_width)
        try:
            if self._container is None:
                self._open(picture)
            for packet in self._stream.encode(self._converted(picture, frame.time_s)):
                self._container.mux(packet)
        except av.error.FFmpegError as error:
            raise self._failed(error) from error
        self._frames += 1

    def _open(self, picture: NDArray[np.uint8]) -> None:
        import av
        from av.video.reformatter import VideoReformatter

        suffix = self.path.suffix.lower()
        codec = next((name for name in CODECS[suffix] if name in av.codecs_available), None)
        if codec is None:
            expected = f"a PyAV with {' or '.join(CODECS[suffix])}"
            raise QanetError(f"cannot encode {self.path}", expected=expected, got=f"PyAV {av.__version__}")
        self._container = av.open(os.path.abspath(self._aside), "w", container_options=_container_options(suffix))
        rate = Fraction(self.fps).limit_denominator(10_000)
        self._stream: Any = self._container.add_stream(codec, rate=rate, options=_OPTIONS.get(codec, {}))
        height, width = picture.shape[:2]
        # subsampled colour needs even sides, and some encoders fail below 16 pixels
        self._stream.width = max(_LEAST_SIDE_PX, width // 2 * 2)
        self._stream.height = max(_LEAST_SIDE_PX, height // 2 * 2)
        self._stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        context = self._stream.codec_context
        context.thread_type = "AUTO"
        self._time_base = 1 / rate if suffix == ".avi" else Fraction(1, _TICKS)
        context.time_base = self._time_base
        if codec != "mjpeg":
            context.colorspace = context.color_primaries = context.color_trc = _BT709
            context.color_range = 1  # 16..235
        self._reformatter = VideoReformatter()

    def _converted(self, picture: NDArray[np.uint8], time_s: float | None) -> Any:
        """A picture in the encoder's size and colour space, with its timestamp."""
        import av
        import cv2

        size = (self._stream.width, self._stream.height)
        if (picture.shape[1], picture.shape[0]) != size:
            picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        given = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="bgr24")
        space = {} if self._stream.pix_fmt == "yuvj420p" else {"dst_colorspace": _BT709}
        made = self._reformatter.reformat(given, format=self._stream.pix_fmt, **space)
        seconds = self._frames / self.fps if time_s is None else time_s
        self._last_pts = made.pts = max(self._last_pts + 1, round(seconds / self._time_base))
        made.time_base = self._time_base
        return made

    def _failed(self, error: Exception) -> QanetError:
        return QanetError(
            f"could not write {self.path}",
            expected=f"room for a video of {self._frames + 1} frames or more",
            got=getattr(error, "strerror", None) or error,
            next_command="free some space or choose another place",
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._container is None:  # Ctrl-C before the first frame: no file
            error = error or QanetError(f"{self.path} has no frame")
            self._stack.__exit__(type(error), error, trace)
            return
        import av

        try:
            if kind is None:
                for packet in self._stream.encode():
                    self._container.mux(packet)
                self._container.close()
        except av.error.FFmpegError as broken:
            failed = self._failed(broken)
            kind, error = type(failed), failed
            raise failed from broken
        finally:
            with contextlib.suppress(av.error.FFmpegError):
                self._container.close()
            self._stack.__exit__(kind, error, trace)


def _container_options(suffix: str) -> dict[str, str]:
    """The index of an .mp4 goes to its start, so that a browser can play it while it loads."""
    return {"movflags": "+faststart"} if suffix in (".mp4", ".mov") else {}


class RtspPush:
    """Pushes H.264 to an RTSP server that accepts streams, such as MediaMTX.

    Frames get the time at which they are written, so the stream plays at the speed of the parsing. An ffmpeg process
    does it and not PyAV, which holds Python's lock while it connects: a silent server would stop the whole run.

    Args:
        uri: rtsp://HOST:PORT/NAME.
        fps: frames per second of the stream.
        max_width: shrink the overlay to this width; 0 keeps it.
    """

    def __init__(self, uri: str, fps: float, max_width: int = 0):
        self.uri, self.fps, self.max_width = uri, fps, max_width
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
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
            self._size = (max(16, width // 2 * 2), max(16, height // 2 * 2))  # encoders need even sides
            self._start()
        if (picture.shape[1], picture.shape[0]) != self._size:
            picture = cv2.resize(picture, self._size, interpolation=cv2.INTER_AREA)
        self._send(memoryview(picture.tobytes()))

    def _start(self) -> None:
        given = ("-f", "rawvideo", "-pixel_format", "bgr24", "-video_size", f"{self._size[0]}x{self._size[1]}")
        timing = ("-framerate", f"{self.fps:g}", "-use_wallclock_as_timestamps", "1")
        made = ("-an", *_RTSP_ENCODER, "-g", str(max(1, round(2 * self.fps))), "-f", "rtsp", "-rtsp_transport", "tcp")
        assert self._program is not None
        command = (self._program, "-loglevel", "error", "-nostats", *given, *timing, "-i", "pipe:0", *made, self.uri)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__, with the process
        self._process = subprocess.Popen(  # in its own session: Ctrl-C ends this process first, which then ends ffmpeg
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._log,
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
                raise self._lost(f"no data accepted for {_STALL_S:g} s")
            try:
                data = data[os.write(pipe, data) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                self._wait()
                raise self._lost(self._complaint()) from None

    def _lost(self, got: str) -> QanetError:
        return QanetError(
            f"could not stream to {self.uri}", expected="an RTSP server that accepts streams, such as MediaMTX", got=got
        )

    def _complaint(self) -> str:
        """The first line of ffmpeg's log, without the address in memory; later lines are consequences."""
        assert self._log is not None
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return re.sub(r"^\[[^\]]*\] *", "", lines[0]) if lines else "ffmpeg ended"

    def _wait(self) -> int:
        """Exit status of ffmpeg, which is killed if it does not end."""
        assert self._process is not None
        try:
            return self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is None or self._log is None:
            return
        try:
            if self._process.stdin is not None:
                self._process.stdin.close()
            status = self._wait()
            if status != 0 and kind is None:
                raise self._lost(self._complaint())
        finally:
            self._log.close()
