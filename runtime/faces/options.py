"""What `qanet parse` takes on its command line for faces, and the detector it makes of them."""

import argparse
from collections.abc import Callable
from pathlib import Path

from qanet.bundle import Bundle, open_bundle
from qanet.errors import QanetError
from qanet.runtime.detectors.base import Detector
from qanet.runtime.faces.detector import GUESS, HEAD_MODEL, is_of_faces, open_face_detector, open_head_detector


def add_face_options(parser: argparse.ArgumentParser) -> None:
    """The options, in a group of their own."""
    group = parser.add_argument_group("faces", "A model of faces is shown the head of each person, and not the person.")
    group.add_argument("--recipe", metavar="NAME", help="the same as --model NAME, made by the recipe of that name")
    group.add_argument("--face-detector", metavar="ONNX", help="find the faces themselves: YuNet, or any known form")
    group.add_argument(
        "--head-model",
        metavar="NAME",
        help=f"bundle that parses people, to tell where their heads are ({HEAD_MODEL}); {GUESS}: by the box alone",
    )


def choose_model(args: argparse.Namespace, default: str) -> Bundle:
    """The bundle that `args` name; `args.model` is what `--recipe` says where there is no other.

    Raises:
        QanetError: it is not there, or of another recipe, or options for faces were given to a model of people.
    """
    if args.recipe and args.model == default:
        args.model = args.recipe
    bundle = open_bundle(args.model)
    made_by = bundle.manifest["made"].get("recipe", {}).get("name", bundle.name)
    if args.recipe not in (None, made_by):
        raise QanetError(f"{bundle.name} is of another recipe", expected=args.recipe, got=made_by)
    for option in ("face_detector", "head_model"):
        if getattr(args, option) and not is_of_faces(bundle.labels):
            raise QanetError(
                f"--{option.replace('_', '-')} is for models of faces",
                expected="labels celebamask19",
                got=f"{bundle.name} with {bundle.labels.name}",
            )
    return bundle


def detector_for(
    bundle: Bundle, args: argparse.Namespace, open_people: Callable[[], Detector], score_threshold: float | None = None
) -> Detector:
    """Who finds what the bundle parses: people, or faces; boxes that were given are taken as they are.

    Args:
        open_people: makes the detector of people that `args` ask for.
        score_threshold: faces of less are not given by a face detector; None: its default.
    """
    given = args.boxes or args.whole_image
    if args.face_detector and (given or args.detector):
        other = "--detector" if args.detector else "--boxes" if args.boxes else "--whole-image"
        raise QanetError(f"--face-detector and {other} contradict each other", expected="one of the two")
    if args.face_detector:
        from qanet.runtime.detectors.onnx import SCORE_THRESHOLD

        return open_face_detector(Path(args.face_detector), score_threshold or SCORE_THRESHOLD, args.threads)
    people = open_people()
    if given or not is_of_faces(bundle.labels):
        return people
    return open_head_detector(people, args.head_model or HEAD_MODEL, args.device, args.threads)
