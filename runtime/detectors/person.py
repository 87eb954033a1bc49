"""The project's own person detector: a bundle with boxes and scores, through the same engines as the parser."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qanet.boxes import suppress
from qanet.bundle import SUFFIX, Bundle, open_bundle
from qanet.errors import QanetError
from qanet.labels import PERSON_BOX1
from qanet.runtime.detectors.base import NOBODY, Detections, clip_boxes
from qanet.runtime.resample import letterboxed

DEFAULT = "person-lite0"  # the shipped one
OUTPUTS = ("boxes", "scores")
SCORE_THRESHOLD = 0.35
_NMS_IOU = 0.5
_MIN_SIDE_PX = 2
_MAX_CANDIDATES = 300  # before suppression, which takes their square


class PersonDetector:
    """People by a detection bundle. One detector a thread.

    Args:
        name_or_path: a shipped name or a NAME.qanet folder.
        score_threshold: people of this score or more are given; the tracker asks for less, see `BYTE_SCORE`.
        device, precision, threads: as for `qanet.load`.
    Raises:
        QanetError: no such bundle, one that does not detect, or no engine for it here.
    """

    def __init__(
        self,
        name_or_path: str | Path = DEFAULT,
        score_threshold: float = SCORE_THRESHOLD,
        device: str = "auto",
        precision: str = "auto",
        threads: int | None = None,
    ):
        from qanet.runtime.backends.select import open_engine

        bundle = open_bundle(name_or_path)
        if not detects(bundle):
            raise QanetError(
                f"{bundle.name} does not detect people",
                expected=f"labels {PERSON_BOX1.name}",
                got=bundle.labels.name,
                next_command=f"--detector {DEFAULT}",
            )
        if device == "auto" and not bundle.engines:
            device = "cpu"  # as it ships; on a GPU it runs once it was built for that
        self.name, self.input_hw, self.score_threshold = bundle.name, bundle.input_hw, score_threshold
        self.engine = open_engine(bundle, device, precision, OUTPUTS, threads)

    def detect(self, image: NDArray[np.uint8], frame: int | str = 0) -> Detections:
        """See `Detector.detect`."""
        canvas, ratio = letterboxed(image, self.input_hw)
        outputs = self.engine.run(canvas[None], np.ones(1, np.float32))
        boxes, scores = np.asarray(outputs["boxes"][0], np.float32), np.asarray(outputs["scores"][0], np.float32)
        sure = np.flatnonzero(scores >= self.score_threshold)  # a score that is nan is none
        best = sure[np.argsort(-scores[sure], kind="stable")[:_MAX_CANDIDATES]]
        found, scores = clip_boxes(boxes[best] / np.float32(ratio), (image.shape[0], image.shape[1])), scores[best]
        large = np.isfinite(found).all(1) & ((found[:, 2:] - found[:, :2]) >= _MIN_SIDE_PX).all(1)
        found, scores = found[large], scores[large]
        if len(found) == 0:
            return NOBODY
        kept = suppress(found, scores, _NMS_IOU)
        return Detections(found[kept], np.clip(scores[kept], 0, 1))


def detects(bundle: Bundle) -> bool:
    """Whether a bundle is a person detector."""
    return bundle.labels == PERSON_BOX1


def names_a_bundle(text: str) -> bool:
    """Whether --detector names a bundle, not an ONNX file: a folder, a name that ends so, or a shipped name."""
    path = Path(text)
    return path.is_dir() or text.rstrip("/").endswith(SUFFIX) or (path.suffix == "" and not path.is_file())
