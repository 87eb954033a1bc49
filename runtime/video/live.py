"""Cameras and network streams: the newest frame wins, and a source that breaks off or stalls is tried again.

A thread reads as fast as the source gives and leaves each frame in one place, over the one before; whoever parses
takes what lies there. So the delay never grows, whatever the parsing takes, and the frames that were written over are
counted.
"""

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qanet.commandline import note
from qanet.errors import QanetError
from qanet.images import quiet_opencv
from qanet.runtime.video import hardware
from qanet.runtime.video.frame import Capture, Frame, frame_rate, read_frame

if TYPE_CHECKING:
    import cv2


STALL_S = 5.0
_GIVE_UP_S = 600.0
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 10.0
_MAX_BROKEN = 10  # frames in a row before a connection counts as lost
_BROKEN_WAIT_S = 0.02


class _Connection:
    """One opened capture and the thread that reads it."""

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
            while not self._closed and broken <= _MAX_BROKEN:
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
        """The newest frame, its number and its time; None when the stream ended or nothing came in time."""
        with self._changed:
            self._changed.wait_for(lambda: self._newest is not None or self._ended or self._closed, timeout_s)
            taken, self._newest = self._newest, None
            return taken

    @property
    def ended(self) -> bool:
        """Whether the stream has broken off; otherwise it only stalls."""
        return self._ended

    def stop(self) -> None:
        """Read no more; whoever waits in `take` gets nothing."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def close(self, wait_s: float) -> None:
        """Stop reading. A read that hangs is left to its own thread, which ends with it."""
        self.stop()
        self._thread.join(wait_s)


class LiveSource:
    """Frames of a live stream, until Ctrl-C or until it has been away for too long.

    Args:
        name: for messages.
        connect: opens the stream; QanetError where it cannot.
        say: told when the stream is lost and when it is back.
        stall_s: without a frame for so long, the stream counts as lost.
        give_up_s: away for so long, the source ends, with a warning.
        first_wait_s: before the first new attempt; doubled up to `longest_wait_s`.
    Raises:
        QanetError: the stream cannot be opened the first time.
    """

    kind = "live"
    expected_frames = 0

    def __init__(
        self,
        name: str,
        connect: Callable[[], Capture],
        say: Callable[[str], None] = note,
        stall_s: float = STALL_S,
        give_up_s: float = _GIVE_UP_S,
        first_wait_s: float = _FIRST_WAIT_S,
        longest_wait_s: float = _LONGEST_WAIT_S,
    ):
        self.name, self._connect, self._say = name, connect, say
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
        capture: Capture | None = self._opened or self._connect()
        self._opened = None
        while capture is not None:
            self._connection = connection = _Connection(capture, self.name)
            try:
                while not self._stopped.is_set() and (taken := connection.take(self._stall_s)) is not None:
                    self.dropped += connection.dropped
                    connection.dropped = 0
                    number = first + taken[0]
                    yield Frame(number, str(number), taken[2], taken[1])
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
        """A new connection, with longer and longer waits between the attempts; None when it is given up."""
        start, wait_s = time.monotonic(), self._first_wait_s
        self._say(f"{self.name} {lost}; trying again")
        while time.monotonic() - start + wait_s <= self._give_up_s:
            if self._stopped.wait(wait_s):
                return None
            try:
                capture = self._connect()
            except QanetError:
                wait_s = min(2 * wait_s, self._longest_wait_s)
                continue
            self.reconnects += 1
            self._say(f"{self.name} is back after {time.monotonic() - start:.1f} s")
            return capture
        self.warnings.append(f"{self.name} {lost} and did not come back within {self._give_up_s:g} s")
        return None


_NETWORK = ("rtsp://", "rtsps://", "rtmp://", "http://", "https://", "udp://", "srt://")
_V4L2 = ("v4l2://", "/dev/video")
_CSI = "csi://"
_CSI_SIZE, _CSI_FPS = (1280, 720), 30.0


def is_live(uri: str) -> bool:
    """Whether an address names a camera or a network stream."""
    return uri.startswith((*_NETWORK, *_V4L2, _CSI))


def open_live(
    uri: str, decoder: str = "auto", size: tuple[int, int] | None = None, rate: float | None = None
) -> LiveSource:
    """A camera (`/dev/video0`, `v4l2:///dev/video0`, `csi://0`) or a network stream (`rtsp://...`).

    Args:
        uri: the address.
        decoder: of a network stream: "auto" and "software" are OpenCV's FFmpeg, "gstreamer" takes the hardware's. A
            stream sends no faster than it plays, so nothing is measured.
        size: (width, height) that a camera is asked for; None: its own choice, 1280x720 of a CSI camera.
        rate: frames a second that a camera is asked for; None: its own choice, 30 of a CSI camera.
    Raises:
        QanetError: it cannot be opened.
    """
    if uri.startswith(_CSI):
        return LiveSource(uri, partial(_open_csi, uri, size or _CSI_SIZE, rate or _CSI_FPS))
    if uri.startswith(_V4L2):
        return LiveSource(uri, partial(_open_v4l2, uri, size, rate))
    if decoder not in ("auto", "software", "gstreamer"):
        raise QanetError(f"{decoder} decodes no live stream", expected="auto, software or gstreamer", got=uri)
    return LiveSource(uri, partial(_open_with_gstreamer if decoder == "gstreamer" else _open_with_ffmpeg, uri))


def _open_csi(uri: str, size: tuple[int, int], rate: float) -> Capture:
    sensor = uri.removeprefix(_CSI) or "0"
    if not sensor.isdecimal():
        raise QanetError(f"no camera {uri}", expected="csi:// and the sensor's number", got=sensor)
    _need_gstreamer(uri)
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
    if size is not None:
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, size[0])
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, size[1])
    if rate is not None:
        capture.set(cv2.CAP_PROP_FPS, rate)
    return _opened(capture, uri, "a free camera", "v4l2-ctl --list-devices")


def _open_with_ffmpeg(uri: str) -> Capture:
    import cv2

    timeout_ms = int(STALL_S * 1000)
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, timeout_ms, cv2.CAP_PROP_READ_TIMEOUT_MSEC, timeout_ms]
    with quiet_opencv():
        capture = cv2.VideoCapture(uri, cv2.CAP_FFMPEG, limits)
    return _opened(capture, uri, "a stream that answers", f"ffprobe {uri}")


def _open_with_gstreamer(uri: str) -> Capture:
    _need_gstreamer(uri)
    capture = hardware.open_pipeline(hardware.address_pipeline(uri))
    if capture is None:
        raise QanetError(
            f"cannot open {uri}", expected="a stream that answers", next_command=f"gst-discoverer-1.0 {uri}"
        )
    return capture


def _need_gstreamer(uri: str) -> None:
    if not hardware.has_gstreamer():
        raise QanetError(
            f"cannot open {uri}",
            expected="an OpenCV built with GStreamer, such as JetPack's",
            got="one without",
            next_command="qanet doctor",
        )


def _opened(capture: "cv2.VideoCapture", uri: str, expected: str, next_command: str) -> Capture:
    if not capture.isOpened():
        capture.release()
        raise QanetError(f"cannot open {uri}", expected=expected, next_command=next_command)
    return capture
