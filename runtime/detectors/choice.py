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
    from qanet.runtime.detectors import person

    if args.detector is None or person.names_a_bundle(args.detector):
        least = score_threshold or person.SCORE_THRESHOLD
        return person.PersonDetector(args.detector or person.DEFAULT, least, threads=args.threads)
    from qanet.runtime.detectors.onnx import SCORE_THRESHOLD, OnnxDetector

    return OnnxDetector(Path(args.detector), score_threshold or SCORE_THRESHOLD, args.threads)
