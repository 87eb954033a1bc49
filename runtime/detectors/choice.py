"""Which detector a command line asks for."""

import argparse
from pathlib import Path

from qanet.runtime.detectors.base import Detector


def open_detector(args: argparse.Namespace, score_threshold: float | None = None) -> Detector:
    """The detector that the arguments ask for; QanetError where it cannot be had.

    Args:
        score_threshold: people of less are not given by an ONNX detector; None: its default.
    """
    if args.whole_image:
        from qanet.runtime.detectors.fixed import WholeImage

        return WholeImage()
    if args.boxes:
        from qanet.runtime.detectors.fixed import BoxesFile

        return BoxesFile(Path(args.boxes))
    if args.detector == "hog":
        from qanet.runtime.detectors.hog import HogDetector

        return HogDetector()
    return named_detector(args.detector, score_threshold, args.threads)


def named_detector(
    name: str | Path | None, score_threshold: float | None = None, threads: int | None = None
) -> Detector:
    """The detector of a bundle's name or of an ONNX file; None names the shipped one.

    Args:
        score_threshold: detections of a lower score are left out; None: the detector's default.
        threads: CPU threads; None leaves the choice to the runtime.
    """
    from qanet.runtime.detectors import person

    if name is None or person.names_a_bundle(str(name)):
        least = score_threshold or person.SCORE_THRESHOLD
        return person.PersonDetector(str(name) if name else person.DEFAULT, least, threads=threads)
    from qanet.runtime.detectors.onnx import SCORE_THRESHOLD, OnnxDetector

    return OnnxDetector(Path(name), score_threshold or SCORE_THRESHOLD, threads)
