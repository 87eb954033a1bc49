"""`qanet train`: the command line of `qanet.train.run.train`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from qanet.commandline import command_parser, emit, note, output_folder
from qanet.datasets import DATA_FORMATS
from qanet.errors import QanetError
from qanet.train.recipes import RECIPES, Recipe
from qanet.train.run import IMAGES_PER_EPOCH, train


def _arguments() -> argparse.ArgumentParser:
    parser = command_parser(
        "train",
        "Train a recipe. An interrupted run continues when the same command is given again. On several GPUs: torchrun "
        "--nproc-per-node N -m qanet train ...",
        epilog=f"Recipes: {', '.join(RECIPES)}. `qanet inspect RECIPE` shows one with its settings.",
    )
    parser.add_argument("recipe", metavar="RECIPE", help="name of a recipe, or a folder of qanet new")
    parser.add_argument("settings", metavar="key=value", nargs="*", help="settings of the recipe, e.g. epochs=10")
    parser.add_argument("--data", metavar="DIR", help="folder of the data set; that of qanet new is its own")
    parser.add_argument("--format", choices=(*DATA_FORMATS, "coco"), help="layout of the data; default: the recipe's")
    parser.add_argument("--output", type=output_folder, metavar="DIR", help="folder of the run; default: runs/RECIPE")
    parser.add_argument("--initial-weights", metavar="FILE", help="start from a .safetensors checkpoint or a bundle")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default auto)")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="threads that load and augment (default 2)")
    parser.add_argument("--deterministic", action="store_true", help="repeatable GPU kernels where PyTorch has them")
    group = parser.add_argument_group("parsing recipes", "more photographs; see docs/training.md")
    group.add_argument(
        "--people",
        nargs=2,
        action="append",
        default=[],
        metavar=("DIR", "SHARE"),
        help="people labelled by silhouettes or teachers, and their share of the people drawn; repeatable",
    )
    group.add_argument(
        "--scenery",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="photographs without people, used as backgrounds and as objects in front; repeatable",
    )
    group = parser.add_argument_group("detection recipes", "--data is a folder of photographs of people")
    group.add_argument(
        "--looks",
        type=Path,
        metavar="JSON",
        help="detections of teachers in the unlabelled photographs (python -m qanet.benchmarks.lab.detector_looks)",
    )
    group.add_argument(
        "--more", type=Path, action="append", default=[], metavar="DIR", help="another such folder; repeatable"
    )
    group.add_argument(
        "--images",
        type=int,
        default=IMAGES_PER_EPOCH,
        metavar="N",
        help=f"training images per epoch (default {IMAGES_PER_EPOCH})",
    )
    return parser


def main(argv: Sequence[str]) -> int:
    """Entry point."""
    args = _arguments().parse_args(argv)
    settings = dict(_setting(text) for text in args.settings)
    if strange := {key: value for key, value in settings.items() if key not in Recipe.__dataclass_fields__}:
        Recipe(args.recipe, "", "", (0, 0)).override(strange)  # names the nearest key
    result = train(
        args.recipe,
        args.data,
        args.output,
        format=args.format,
        initial_weights=args.initial_weights,
        people=[(folder, _share(share)) for folder, share in args.people],
        scenery=args.scenery,
        looks=args.looks,
        more=args.more,
        images=args.images,
        device=args.device,
        workers=args.workers,
        deterministic=args.deterministic,
        report=note,
        **settings,
    )

    from qanet.train.distributed import is_main_process

    if is_main_process():
        document: dict[str, object] = {
            "weights": str(result.weights),
            "epochs": result.epochs,
            "seconds": round(result.seconds, 1),
        }
        document |= result.scores
        emit(
            args.json,
            document,
            f"wrote {result.weights} after {result.seconds / 3600:.2f} h\n"
            f"next: qanet export {result.weights} --output {result.recipe.name}.qanet",
        )
    return 0


def _setting(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise QanetError("bad setting", expected="key=value", got=text)
    return key, value


def _share(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise QanetError("bad share of people", expected="--people DIR SHARE, such as 0.4", got=text) from error
