"""Hardware decoders: GStreamer, which uses the decoder of the platform, and NVDEC through PyNvVideoCodec."""

import ctypes
import importlib.util
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.quiet import quiet_opencv
from qanet.runtime.video.frame import Capture

_JETSON = Path("/etc/nv_tegra_release")


class GStreamer:
    """GStreamer through OpenCV, which must be built with it, as on a Jetson; PyPI's wheels are not."""

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
    """A file to BGR pictures, with rotation metadata applied."""
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
        size: (width, height) pixels, a mode of the sensor.
        rate: frames per second.
    """
    caps = f"video/x-raw(memory:NVMM),width={size[0]},height={size[1]},framerate={round(rate)}/1"
    convert = "nvvidconv ! video/x-raw,format=BGRx ! videoconvert ! video/x-raw,format=BGR"
    return f"nvarguscamerasrc sensor-id={sensor} ! {caps} ! {convert} ! appsink drop=true max-buffers=1 sync=false"


def to_bgr() -> str:
    """From the memory of any decoder to BGR; only nvvidconv reads the memory of a Jetson's decoder."""
    copy = "nvvidconv ! video/x-raw,format=BGRx ! " if _JETSON.exists() else ""
    return f"{copy}videoflip method=automatic ! videoconvert ! video/x-raw,format=BGR"


def open_pipeline(pipeline: str) -> Capture | None:
    """A started pipeline that ends in an appsink; None if it does not start."""
    import cv2

    with quiet_opencv():
        capture = cv2.VideoCapture(pipeline, cv2.CAP_GSTREAMER)
    if capture.isOpened():
        return capture
    capture.release()
    return None


_AHEAD = 8  # frames that its thread decodes ahead, and how many are fetched at once


class Nvidia:
    """PyNvVideoCodec, if it is installed and finds a GPU; frames come to the host as RGB."""

    name = "nvidia"

    def lack(self) -> str | None:
        """See `Decoder.lack`."""
        if importlib.util.find_spec("PyNvVideoCodec") is None:
            return "PyNvVideoCodec is not installed"
        try:
            import PyNvVideoCodec  # noqa: F401
        except Exception as error:  # a missing driver raises various types
            return f"PyNvVideoCodec does not load: {error}"
        return None

    def open(self, path: Path) -> Capture | None:
        """See `Decoder.open`."""
        try:
            return NvidiaCapture(path)
        except Exception:  # its exceptions have no common class: no GPU, unknown codec, no video
            return None


class NvidiaCapture:
    """A file decoded by NVDEC, with the interface of OpenCV's VideoCapture."""

    def __init__(self, path: Path):
        import PyNvVideoCodec as nvc

        self._decoder: Any = nvc.ThreadedDecoder(
            str(path), _AHEAD, use_device_memory=False, output_color_type=nvc.OutputColorType.RGB
        )
        self._about = self._decoder.get_stream_metadata()
        self._waiting: deque[Any] = deque()

    def read(self) -> tuple[bool, NDArray[np.uint8] | None]:
        """Whether there was a frame, and the frame, (H, W, 3) uint8 BGR; the caller owns it."""
        if not self._waiting and self._decoder is not None:
            try:
                self._waiting.extend(self._decoder.get_batch_frames(_AHEAD))
            except Exception:  # a broken frame, or a broken file
                return False, None
        if not self._waiting:
            return False, None
        frame = self._waiting.popleft()
        shape = (int(self._about.height), int(self._about.width), 3)
        if frame.framesize() != int(np.prod(shape)):
            return False, None
        pixels = ctypes.string_at(frame.GetPtrToPlane(0), frame.framesize())
        return True, np.ascontiguousarray(np.frombuffer(pixels, np.uint8).reshape(shape)[:, :, ::-1])

    def get(self, prop: int) -> float:
        """Frames per second and number of frames; 0 for other properties."""
        import cv2

        if prop == cv2.CAP_PROP_FPS:
            return float(self._about.average_fps)
        return float(self._about.num_frames) if prop == cv2.CAP_PROP_FRAME_COUNT else 0.0

    def release(self) -> None:
        """Stop its thread and close the file."""
        self._waiting.clear()
        decoder, self._decoder = self._decoder, None
        if decoder is not None:
            decoder.end()
