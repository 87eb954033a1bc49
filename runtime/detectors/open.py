"""Detectors of people that look at the image, and the choice between all detectors.

`PersonDetector` runs the project's own bundle through the same backends as the parser; `OnnxDetector` runs an ONNX file
of a known form (see `forms`).
"""

import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.bundle import SUFFIX, Bundle, open_bundle
from qanet.errors import QanetError
from qanet.geometry import suppress
from qanet.labels import PERSON_BOX1
from qanet.runtime.backends.select import open_engine
from qanet.runtime.detectors.base import NOBODY, BoxesFile, Detections, Detector, WholeImage, clip_boxes
from qanet.runtime.detectors.forms import recognise
from qanet.runtime.detectors.graph import compile_graph, read_graph
from qanet.runtime.kernels import choose_kernels

DEFAULT = "person-lite0"  # the shipped bundle
OUTPUTS = ("boxes", "scores")  # of a detection bundle's graph
SCORE_THRESHOLD = 0.35
_NMS_IOU = 0.5
_MIN_SIDE_PX = 2
_MAX_CANDIDATES = 300  # of the bundle, before suppression, which takes their square
_MAX_ONNX_CANDIDATES = 1000


def open_detector(
    name: str | None = None,
    *,
    boxes: str | Path | None = None,
    whole_image: bool = False,
    score_threshold: float | None = None,
    threads: int | None = None,
) -> Detector:
    """The detector of people for a command line's options.

    Args:
        name: a bundle, or an ONNX file of a known form; None: the shipped bundle, person-lite0.
        boxes: a file of boxes instead, see `BoxesFile`.
        whole_image: one person per image instead, filling it.
        score_threshold: least score of a person; None: 0.35. Boxes from a file are all taken.
        threads: CPU threads; None leaves the choice to the runtime.
    Raises:
        QanetError: the detector cannot be opened.
    """
    if whole_image:
        return WholeImage()
    if boxes:
        return BoxesFile(Path(boxes))
    least = score_threshold or SCORE_THRESHOLD
    if name is None or names_a_bundle(name):
        return PersonDetector(name or DEFAULT, least, threads=threads)
    return OnnxDetector(Path(name), least, threads)


def names_a_bundle(text: str) -> bool:
    """Whether --detector names a bundle (a folder, NAME.qanet, or a shipped name) and not an ONNX file."""
    path = Path(text)
    return path.is_dir() or text.rstrip("/").endswith(SUFFIX) or (path.suffix == "" and not path.is_file())


def detects(bundle: Bundle) -> bool:
    """Whether a bundle is a person detector."""
    return bundle.labels == PERSON_BOX1


class PersonDetector:
    """People by a detection bundle. Threads may share it, and it pickles, as does every detector here.

    Args:
        name_or_path: a shipped name or a NAME.qanet folder.
        score_threshold: least score of a person; the tracker uses a lower one, see `BYTE_SCORE`.
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
        bundle = open_bundle(name_or_path)
        if not detects(bundle):
            raise QanetError(
                f"{bundle.name} does not detect people",
                expected=f"labels {PERSON_BOX1.name}",
                got=bundle.labels.name,
                next_command=f"--detector {DEFAULT}",
            )
        if device == "auto" and not bundle.engines:
            device = "cpu"  # as it ships; it runs on a GPU after `qanet build`
        self.name, self.input_hw, self.score_threshold = bundle.name, bundle.input_hw, score_threshold
        self._kernels = choose_kernels()
        self.engine = open_engine(bundle, device, precision, OUTPUTS, threads)

    def detect(self, image: NDArray[np.uint8], frame: int | str = 0) -> Detections:
        """See `Detector.detect`."""
        canvas, ratio = self._kernels.letterboxed(image, self.input_hw)
        outputs = self.engine.run(canvas[None], np.ones(1, np.float32))
        boxes, scores = np.asarray(outputs["boxes"][0], np.float32), np.asarray(outputs["scores"][0], np.float32)
        sure = np.flatnonzero(scores >= self.score_threshold)  # NaN is not >= anything
        best = sure[np.argsort(-scores[sure], kind="stable")[:_MAX_CANDIDATES]]
        found, scores = clip_boxes(boxes[best] / np.float32(ratio), (image.shape[0], image.shape[1])), scores[best]
        large = np.isfinite(found).all(1) & ((found[:, 2:] - found[:, :2]) >= _MIN_SIDE_PX).all(1)
        found, scores = found[large], scores[large]
        if len(found) == 0:
            return NOBODY
        kept = suppress(found, scores, _NMS_IOU)
        return Detections(found[kept], np.clip(scores[kept], 0, 1))


class OnnxDetector:
    """People by an ONNX file of a known form, through OpenVINO on the CPU. Calls of several threads take turns.

    Args:
        path: the ONNX file.
        score_threshold: least score of a person; the tracker uses a lower one, see `BYTE_SCORE`.
        threads: CPU threads; None leaves the choice to OpenVINO.
    Raises:
        QanetError: no file, not ONNX, or of no known form; the error lists the ports and the forms.
    """

    def __init__(self, path: Path, score_threshold: float = SCORE_THRESHOLD, threads: int | None = None):
        model, graph = read_graph(path)
        self.form = recognise(graph, path.name)
        self._request, self._turn = compile_graph(model, threads), threading.Lock()
        self.score_threshold, self._path, self._threads = score_threshold, path, threads
        self.name = path.name

    def __reduce__(self) -> tuple[Any, ...]:
        return OnnxDetector, (self._path, self.score_threshold, self._threads)

    def detect(self, image: NDArray[np.uint8], frame: int | str = 0) -> Detections:
        """See `Detector.detect`."""
        with self._turn:  # the form remembers from `feed` to `decode` how the image lies in its input
            self._request.infer(self.form.feed(image))
            outputs = [np.array(tensor.data) for tensor in self._request.output_tensors]
            boxes, scores = self.form.decode(outputs, self.score_threshold)
        boxes, scores = np.asarray(boxes, np.float32).reshape(-1, 4), np.asarray(scores, np.float32)
        finite = np.isfinite(boxes).all(1) & np.isfinite(scores)
        boxes, scores = clip_boxes(boxes[finite], (image.shape[0], image.shape[1])), scores[finite]
        large = ((boxes[:, 2:] - boxes[:, :2]) >= _MIN_SIDE_PX).all(1)
        boxes, scores = boxes[large], np.clip(scores[large], 0, 1)
        order = np.argsort(-scores, kind="stable")[:_MAX_ONNX_CANDIDATES]
        if len(order) == 0:
            return NOBODY
        boxes, scores = boxes[order], scores[order]
        if self.form.needs_nms:
            kept = suppress(boxes, scores, _NMS_IOU)
            boxes, scores = boxes[kept], scores[kept]
        return Detections(boxes, scores)
