"""Addresses of live sources, by the habits of jetson-utils: V4L2 and CSI cameras, and network streams."""

from functools import partial
from typing import TYPE_CHECKING

from qanet.errors import QanetError
from qanet.images import quiet_opencv
from qanet.runtime.video.decoders import gstreamer
from qanet.runtime.video.sources.base import Capture
from qanet.runtime.video.sources.live import STALL_S, LiveSource

if TYPE_CHECKING:
    import cv2

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
    capture = gstreamer.open_pipeline(gstreamer.camera_pipeline(int(sensor), size, rate))
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
    capture = gstreamer.open_pipeline(gstreamer.address_pipeline(uri))
    if capture is None:
        raise QanetError(
            f"cannot open {uri}", expected="a stream that answers", next_command=f"gst-discoverer-1.0 {uri}"
        )
    return capture


def _need_gstreamer(uri: str) -> None:
    if not gstreamer.has_gstreamer():
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
