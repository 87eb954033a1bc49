"""Command-line options of `qanet parse` for faces, and the model and detector that they choose."""

import argparse
from pathlib import Path

from qanet.bundle import Bundle, open_bundle
from qanet.errors import QanetError
from qanet.runtime.detectors.base import Detector
from qanet.runtime.detectors.open import SCORE_THRESHOLD, OnnxDetector, open_detector
from qanet.runtime.faces.detector import GUESS, HEAD_MODEL, FaceDetector, HeadDetector, is_of_faces


def add_face_options(parser: argparse.ArgumentParser) -> None:
    """The options, in a group of their own."""
    group = parser.add_argument_group("faces", "A model of faces parses the head of each person.")
    group.add_argument(
        "--recipe", metavar="NAME", help="model made with this training recipe; an alternative to --model"
    )
    group.add_argument("--face-detector", metavar="ONNX", help="detector of faces: YuNet, or another known form")
    group.add_argument(
        "--head-model",
        metavar="NAME",
        help=f"bundle that parses people to locate their heads (default: {HEAD_MODEL}); {GUESS}: from the box alone",
    )


def choose_model(args: argparse.Namespace, default: str) -> Bundle:
    """The bundle of --model, or of --recipe where --model has its default; sets `args.model` to its name.

    A model of whole pictures sets `args.whole_image`, unless boxes or a detector are given.

    Raises:
        QanetError: no such bundle, one made with another recipe, or options for faces with a model of people.
    """
    if args.recipe and args.model == default:
        args.model = args.recipe
    bundle = open_bundle(args.model)
    made_by = bundle.manifest["made"].get("recipe", {}).get("name", bundle.name)
    if args.recipe not in (None, made_by):
        raise QanetError(f"{bundle.name} is of another recipe", expected=args.recipe, got=made_by)
    if bundle.view == "whole" and not (args.boxes or args.detector):
        args.whole_image = True
    for option in ("face_detector", "head_model"):
        if getattr(args, option) and not is_of_faces(bundle.labels):
            raise QanetError(
                f"--{option.replace('_', '-')} is for models of faces",
                expected="labels celebamask19",
                got=f"{bundle.name} with {bundle.labels.name}",
            )
    return bundle


def detector_for(bundle: Bundle, args: argparse.Namespace, score_threshold: float | None = None) -> Detector:
    """The detector of what the bundle parses, people or faces; boxes that were given are taken as they are.

    Args:
        score_threshold: least score of a detection; None: the detector's default.
    Raises:
        QanetError: options that contradict each other, or a detector that cannot be opened.
    """
    given = args.boxes or args.whole_image
    if args.face_detector and (given or args.detector):
        other = "--detector" if args.detector else "--boxes" if args.boxes else "--whole-image"
        raise QanetError(f"--face-detector and {other} contradict each other", expected="one of the two")
    if args.face_detector:
        return FaceDetector(OnnxDetector(Path(args.face_detector), score_threshold or SCORE_THRESHOLD, args.threads))
    people = open_detector(
        args.detector,
        boxes=args.boxes,
        whole_image=args.whole_image,
        score_threshold=score_threshold,
        threads=args.threads,
    )
    if given or not is_of_faces(bundle.labels):
        return people
    from qanet.runtime.parser import load

    head_model = args.head_model or HEAD_MODEL
    return HeadDetector(people, None if head_model == GUESS else load(head_model, args.device, threads=args.threads))
