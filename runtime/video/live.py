"""Cameras and network streams: only the newest frame counts, and a lost stream is opened again.

A thread reads as fast as the source delivers and keeps only the newest frame. So the delay never grows, however long
parsing takes, and replaced frames are counted as dropped.
"""

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from qanet.commandline import note
from qanet.errors import QanetError
from qanet.quiet import quiet_opencv
from qanet.runtime.video import hardware
from qanet.runtime.video.decoders import AvCapture, has_pyav
from qanet.runtime.video.frame import Capture, Frame, frame_rate, read_frame

STALL_S = 5.0
_GIVE_UP_S = 600.0
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 10.0
_MAX_BROKEN = 10  # frames in a row before a connection counts as lost
_BROKEN_WAIT_S = 0.02
_RTSP = ("rtsp://", "rtsps://")
_NETWORK = (*_RTSP, "rtmp://", "http://", "https://", "udp://", "srt://")
_V4L2 = ("v4l2://", "/dev/video")
_CSI = "csi://"
_CSI_SIZE, _CSI_FPS = (1280, 720), 30.0


def is_live(uri: str) -> bool:
    """Whether an address names a camera or a network stream."""
    return uri.startswith((*_NETWORK, *_V4L2, _CSI))


class _Connection:
    """An opened capture and the thread that reads it."""

    def __init__(self, capture: Capture, name: str):
        self._capture = capture
        self._changed = threading.Condition()
        self._newest: tuple[int, float, NDArray[np.uint8]] | None = None
        self._ended = self._closed = False
        self.received = self.dropped = self.skipped = 0
        self._thread = threading.Thread(target=self._read, name=f"qanet-live {name}", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        broken = 0
        try:
            while not self._closed and broken <= _MAX_BROKEN and not getattr(self._capture, "ended", False):
                image = read_frame(self._capture)
                if image is None:
                    broken += 1
                    time.sleep(_BROKEN_WAIT_S)
                    continue
                with self._changed:
                    self.dropped += self._newest is not None
                    self.skipped += broken
                    self._newest = (self.received + self.skipped, time.monotonic(), image)
                    self.received += 1
                    self._changed.notify()
                broken = 0
        finally:  # here and not in `close`: a capture must not be released while it reads
            self._capture.release()
            with self._changed:
                self._ended = True
                self._changed.notify()

    def take(self, timeout_s: float) -> tuple[int, float, NDArray[np.uint8]] | None:
        """The newest frame, its number and its time; None if the stream ended or no frame arrived in time."""
        with self._changed:
            self._changed.wait_for(lambda: self._newest is not None or self._ended or self._closed, timeout_s)
            taken, self._newest = self._newest, None
            return taken

    @property
    def ended(self) -> bool:
        """Whether the stream broke off; otherwise it only stalls."""
        return self._ended

    def stop(self) -> None:
        """Stop reading; a waiting `take` returns None."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def close(self, wait_s: float) -> None:
        """Stop reading. A hanging read is left to its thread."""
        self.stop()
        self._thread.join(wait_s)


class LiveSource:
    """Frames of a live stream, until Ctrl-C or until the stream has been lost for too long.

    Args:
        name: for messages.
        connect: opens the stream, or raises QanetError.
        report: called with a line of text when the stream is lost and when it is back.
        stall_s: seconds without a frame after which the stream counts as lost.
        give_up_s: seconds after which a lost stream ends the source, with a warning.
        first_wait_s: seconds before the first new attempt; doubled up to `longest_wait_s`.
    Raises:
        QanetError: the stream cannot be opened the first time.
    """

    kind = "live"
    expected_frames = 0

    def __init__(
        self,
        name: str,
        connect: Callable[[], Capture],
        report: Callable[[str], None] = note,
        stall_s: float = STALL_S,
        give_up_s: float = _GIVE_UP_S,
        first_wait_s: float = _FIRST_WAIT_S,
        longest_wait_s: float = _LONGEST_WAIT_S,
    ):
        self.name, self._connect, self._report = name, connect, report
        self._stall_s, self._give_up_s = stall_s, give_up_s
        self._first_wait_s, self._longest_wait_s = first_wait_s, longest_wait_s
        self.warnings: list[str] = []
        self.dropped = self.skipped = self.reconnects = 0
        self._stopped = threading.Event()
        self._connection: _Connection | None = None
        self._opened: Capture | None = connect()
        self.fps = frame_rate(self._opened)

    def __iter__(self) -> Iterator[Frame]:
        first = 0  # number of the connection's first frame
        start_s: float | None = None
        capture: Capture | None = self._opened or self._connect()
        self._opened = None
        while capture is not None:
            self._connection = connection = _Connection(capture, self.name)
            try:
                while not self._stopped.is_set() and (taken := connection.take(self._stall_s)) is not None:
                    self.dropped += connection.dropped
                    connection.dropped = 0
                    number = first + taken[0]
                    start_s = taken[1] if start_s is None else start_s
                    yield Frame(number, str(number), taken[2], taken[1], taken[1] - start_s)
                lost = "broke off" if connection.ended else f"sent nothing for {self._stall_s:g} s"
            finally:
                connection.close(wait_s=0.2)
                self.skipped += connection.skipped
                first += connection.received + connection.skipped
            capture = None if self._stopped.is_set() else self._again(lost)

    def stop(self) -> None:
        """End the iteration soon, from another thread."""
        self._stopped.set()
        if self._connection is not None:
            self._connection.stop()

    def _again(self, lost: str) -> Capture | None:
        """A new connection, after attempts with growing waits; None if they all failed."""
        start, wait_s = time.monotonic(), self._first_wait_s
        self._report(f"{self.name} {lost}; trying again")
        while time.monotonic() - start + wait_s <= self._give_up_s:
            if self._stopped.wait(wait_s):
                return None
            try:
                capture = self._connect()
            except QanetError:
                wait_s = min(2 * wait_s, self._longest_wait_s)
                continue
            self.reconnects += 1
            self._report(f"{self.name} is back after {time.monotonic() - start:.1f} s")
            return capture
        self.warnings.append(f"{self.name} {lost} and did not come back within {self._give_up_s:g} s")
        return None


def open_live(
    uri: str, decoder: str = "auto", size: tuple[int, int] | None = None, rate: float | None = None
) -> LiveSource:
    """A camera (`/dev/video0`, `v4l2:///dev/video0`, `csi://0`) or a network stream (`rtsp://...`).

    Args:
        uri: the address, as in jetson-utils.
        decoder: of a network stream: "auto" and "software" are PyAV (OpenCV where PyAV is not installed),
            "gstreamer" can use a hardware decoder. Nothing is measured: a stream is no faster than it plays.
        size: (width, height) requested from a camera; None: the camera's default, 1280x720 for CSI.
        rate: frames per second requested from a camera; None: the camera's default, 30 for CSI.
    Raises:
        QanetError: it cannot be opened.
    """
    if uri.startswith(_CSI):
        return LiveSource(uri, partial(_open_csi, uri, size or _CSI_SIZE, rate or _CSI_FPS))
    if uri.startswith(_V4L2):
        return LiveSource(uri, partial(_open_v4l2, uri, size, rate))
    if decoder not in ("auto", "software", "gstreamer"):
        raise QanetError(f"{decoder} decodes no live stream", expected="auto, software or gstreamer", got=uri)
    if decoder == "gstreamer":
        return LiveSource(uri, partial(_open_with_gstreamer, uri))
    return LiveSource(uri, partial(_open_with_pyav if has_pyav() else _open_with_opencv, uri))


def _open_csi(uri: str, size: tuple[int, int], rate: float) -> Capture:
    sensor = uri.removeprefix(_CSI) or "0"
    if not sensor.isdecimal():
        raise QanetError(f"no camera {uri}", expected="csi:// and the sensor's number", got=sensor)
    _require_gstreamer(uri)
    capture = hardware.open_pipeline(hardware.camera_pipeline(int(sensor), size, rate))
    if capture is None:
        trial = f"gst-launch-1.0 nvarguscamerasrc sensor-id={sensor} num-buffers=1 ! fakesink"
        expected = f"a Jetson with a free CSI camera that has a mode of {size[0]}x{size[1]} at {rate:g} frames/s"
        raise QanetError(f"cannot open {uri}", expected=expected, next_command=trial)
    return capture


def _open_v4l2(uri: str, size: tuple[int, int] | None, rate: float | None) -> Capture:
    import cv2

    with quiet_opencv():
        capture = cv2.VideoCapture(uri.removeprefix("v4l2://"), cv2.CAP_V4L2)
    if not capture.isOpened():
        capture.release()
        raise QanetError(f"cannot open {uri}", expected="a free camera", next_command="v4l2-ctl --list-devices")
    if size is not None:
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, size[0])
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, size[1])
    if rate is not None:
        capture.set(cv2.CAP_PROP_FPS, rate)
    return capture


def _open_with_pyav(uri: str) -> Capture:
    options = {"rtsp_transport": "tcp"} if uri.startswith(_RTSP) else {}
    try:
        return AvCapture(uri, options, timeout_s=STALL_S, low_delay=True)
    except OSError as error:
        raise _no_answer(uri, f"ffprobe {uri}", str(error)) from None


def _open_with_opencv(uri: str) -> Capture:
    import cv2

    timeout_ms = int(STALL_S * 1000)
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, timeout_ms, cv2.CAP_PROP_READ_TIMEOUT_MSEC, timeout_ms]
    with quiet_opencv():
        capture = cv2.VideoCapture(uri, cv2.CAP_FFMPEG, limits)
    if not capture.isOpened():
        capture.release()
        raise _no_answer(uri, f"ffprobe {uri}")
    return capture


def _open_with_gstreamer(uri: str) -> Capture:
    _require_gstreamer(uri)
    capture = hardware.open_pipeline(hardware.address_pipeline(uri))
    if capture is None:
        raise _no_answer(uri, f"gst-discoverer-1.0 {uri}")
    return capture


def _no_answer(uri: str, next_command: str, got: str | None = None) -> QanetError:
    return QanetError(f"cannot open {uri}", expected="a stream that answers", got=got, next_command=next_command)


def _require_gstreamer(uri: str) -> None:
    if not hardware.has_gstreamer():
        raise QanetError(
            f"cannot open {uri}",
            expected="an OpenCV built with GStreamer, such as JetPack's",
            got="one without",
            next_command="qanet doctor",
        )
