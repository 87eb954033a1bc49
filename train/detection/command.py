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

IMAGES = 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What only detection recipes take."""
    group = parser.add_argument_group("detection", "recipe person-lite0; --data is a folder of photographs of people")
    group.add_argument(
        "--looks",
        type=Path,
        metavar="JSON",
        help="what teachers see in the unlabelled photographs (python -m qanet.benchmarks.lab.detector_looks)",
    )
    group.add_argument(
        "--more", type=Path, action="append", default=[], metavar="DIR", help="another such folder; may be given again"
    )
    group.add_argument("--images", type=int, default=IMAGES, metavar="N", help=f"drawn an epoch ({IMAGES})")


def open_run(
    recipe: Recipe, args: argparse.Namespace, folder: Path, device: "torch.device", world: "World"
) -> "DetectorTrainer":
    """The trainer, after its photographs were read and taught.

    Raises:
        QanetError: a folder is missing, empty or broken; unlabelled photographs without looks.
    """
    from qanet.train.detection.data import DetectionData
    from qanet.train.detection.photographs import UNLABELLED, Album, read_photographs
    from qanet.train.detection.teachers import taught
    from qanet.train.detection.trainer import DetectorTrainer

    photographs = [p for root in (Path(args.data), *args.more) for p in read_photographs(root)]
    if args.looks is not None:
        photographs = taught(photographs, args.looks)
    elif any(p.kind == UNLABELLED for p in photographs):
        raise QanetError(
            f"{args.data} has photographs without labels",
            expected="--looks of teachers at them",
            got="none",
            next_command="see docs/training.md, The person detector",
        )
    val = Album([p for p in photographs if p.held_back])
    data = DetectionData([p for p in photographs if not p.held_back], args.images)
    return DetectorTrainer(recipe, data, val, folder, device, args.workers, args.initial_weights, world)
