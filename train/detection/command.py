"""What `qanet train` does with a detection recipe: its folders, its run."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from qanet.errors import QanetError
from qanet.train.recipe import Recipe

if TYPE_CHECKING:
    import torch

    from qanet.train.detection.trainer import DetectorTrainer
    from qanet.train.loop.distributed import World

SCENES = 0.45  # share of images


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The folders that only detection recipes take."""
    group = parser.add_argument_group("detection", "recipe person-lite0; --data is CCP's folder, for people to paste")
    group.add_argument("--backgrounds", type=Path, metavar="DIR", help="photographs without people")
    group.add_argument(
        "--labelled", type=Path, action="append", default=[], metavar="DIR",
        help="images with a teacher's boxes (python -m qanet.runtime.detectors.label); may be given again",
    )  # fmt: skip
    group.add_argument(
        "--scenes",
        type=float,
        default=SCENES,
        metavar="SHARE",
        help=f"of images: scenes pasted anew ({SCENES})",
    )
    group.add_argument("--images", type=int, default=1024, metavar="N", help="drawn an epoch (1024)")


def open_run(
    recipe: Recipe, args: argparse.Namespace, folder: Path, device: "torch.device", world: "World"
) -> "DetectorTrainer":
    """The trainer, after its folders were checked.

    Raises:
        QanetError: a folder is missing, empty or broken.
    """
    from qanet.train.detection.data import DetectionData
    from qanet.train.detection.frames import LabelledImages
    from qanet.train.detection.trainer import DetectorTrainer

    if args.backgrounds is None:
        raise QanetError(
            f"recipe {recipe.name} needs photographs without people", expected="--backgrounds DIR", got="nothing",
            next_command="see docs/training.md, The person detector",
        )  # fmt: skip
    data = DetectionData(Path(args.data), args.backgrounds, args.labelled, args.images, args.scenes)
    val = [LabelledImages(folder, "val") for folder in args.labelled if (folder / "val.json").is_file()]
    return DetectorTrainer(recipe, data, val, folder, device, args.workers, args.initial_weights, world)
