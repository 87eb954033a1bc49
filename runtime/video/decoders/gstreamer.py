"""Decoding by GStreamer, which takes the hardware's own decoder where its plug-in is installed."""

from pathlib import Path

from qanet.images import quiet_opencv
from qanet.runtime.video.sources.base import Capture

_JETSON = Path("/etc/nv_tegra_release")


class GStreamer:
    """An OpenCV built with GStreamer, as on a Jetson; the wheels of PyPI are built without."""

    name = "gstreamer"

    def lack(self) -> str | None:
        """See `Decoder.lack`."""
        return None if has_gstreamer() else "this OpenCV is built without GStreamer"

    def open(self, path: Path) -> Capture | None:
        """See `Decoder.open`."""
        return open_pipeline(f"{file_pipeline(path)} ! appsink sync=false max-buffers=4")


def has_gstreamer() -> bool:
    """Whether this OpenCV opens GStreamer pipelines."""
    import cv2

    return bool(cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER))


def file_pipeline(path: Path) -> str:
    """A file to BGR pictures, turned as its metadata says."""
    quoted = str(path.resolve()).replace("\\", "\\\\").replace('"', '\\"')
    return f'filesrc location="{quoted}" ! decodebin ! {to_bgr()}'


def address_pipeline(uri: str) -> str:
    """A network stream to BGR pictures."""
    quoted = uri.replace("\\", "\\\\").replace('"', '\\"')
    return f'uridecodebin uri="{quoted}" ! {to_bgr()} ! appsink drop=true max-buffers=1 sync=false'


def camera_pipeline(sensor: int, size: tuple[int, int], rate: float) -> str:
    """A CSI camera of a Jetson to BGR pictures.

    Args:
        sensor: its number.
        size: (width, height) pixels; the sensor must have a mode of it.
        rate: frames a second.
    """
    caps = f"video/x-raw(memory:NVMM),width={size[0]},height={size[1]},framerate={round(rate)}/1"
    convert = "nvvidconv ! video/x-raw,format=BGRx ! videoconvert ! video/x-raw,format=BGR"
    return f"nvarguscamerasrc sensor-id={sensor} ! {caps} ! {convert} ! appsink drop=true max-buffers=1 sync=false"


def to_bgr() -> str:
    """From a decoder's memory, whatever it is, to BGR: a Jetson's decoder leaves frames where only nvvidconv reads."""
    copy = "nvvidconv ! video/x-raw,format=BGRx ! " if _JETSON.exists() else ""
    return f"{copy}videoflip method=automatic ! videoconvert ! video/x-raw,format=BGR"


def open_pipeline(pipeline: str) -> Capture | None:
    """A pipeline that ends in an appsink; None where it does not start."""
    import cv2

    with quiet_opencv():
        capture = cv2.VideoCapture(pipeline, cv2.CAP_GSTREAMER)
    if capture.isOpened():
        return capture
    capture.release()
    return None
