"""Decoding on the CPU, by the FFmpeg inside OpenCV."""

from pathlib import Path

from qanet.images import quiet_opencv
from qanet.runtime.video.sources.base import Capture


class Software:
    """On every machine; the one that the others are compared with."""

    name = "software"

    def lack(self) -> str | None:
        """None: OpenCV's wheels come with FFmpeg."""
        return None

    def open(self, path: Path) -> Capture | None:
        """See `Decoder.open`."""
        import cv2

        with quiet_opencv():
            capture = cv2.VideoCapture(str(path))
        if capture.isOpened():
            return capture
        capture.release()
        return None
