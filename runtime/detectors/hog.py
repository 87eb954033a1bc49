"""OpenCV's own people detector (HOG + SVM, Dalal and Triggs 2005): needs no download, finds upright people only."""

import numpy as np
from numpy.typing import NDArray

from qanet.errors import QanetError
from qanet.geometry import suppress
from qanet.runtime.detectors.base import NOBODY, Detections, clip_boxes

_LONG_SIDE_PX = 640  # the 64x128 window then sees people from about 1/4 of the frame's height
_MARGIN_XY = (0.14, 0.06)  # the training windows have this much of their size around the person, each side


class HogDetector:
    """Default where no detector is given; its scores are a logistic of the SVM's margin, not calibrated."""

    name = "OpenCV HOG people detector"

    def __init__(self) -> None:
        import cv2

        if not hasattr(cv2, "HOGDescriptor"):
            raise QanetError(
                f"OpenCV {cv2.__version__} has no HOG people detector",
                expected="OpenCV 4",
                next_command="pip install 'opencv-python-headless<5', or give --detector yolox_nano.onnx",
            )
        self._hog = cv2.HOGDescriptor()
        self._hog.setSVMDetector(cv2.HOGDescriptor_getDefaultPeopleDetector())

    def detect(self, image: NDArray[np.uint8], frame: int | str = 0) -> Detections:
        """See `Detector.detect`."""
        import cv2

        height, width = image.shape[:2]
        scale = min(1.0, _LONG_SIDE_PX / max(height, width))
        small_hw = (round(height * scale), round(width * scale))
        if small_hw[0] < 128 or small_hw[1] < 64:
            return NOBODY  # smaller than the detector's window
        small = image if scale == 1 else cv2.resize(image, small_hw[::-1], interpolation=cv2.INTER_AREA)
        found, margins = self._hog.detectMultiScale(small, winStride=(8, 8), padding=(16, 16), scale=1.05)
        if len(found) == 0:
            return NOBODY
        xywh = np.asarray(found, np.float32) / scale
        inset = xywh[:, 2:] * np.array(_MARGIN_XY, np.float32)
        boxes = np.concatenate([xywh[:, :2] + inset, xywh[:, :2] + xywh[:, 2:] - inset], 1)
        boxes = clip_boxes(boxes, (height, width))
        scores = (1 / (1 + np.exp(-2 * np.asarray(margins, np.float32).ravel()))).astype(np.float32)
        kept = suppress(boxes, scores, 0.5)
        return Detections(boxes[kept], scores[kept])
