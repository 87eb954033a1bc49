"""`qanet train`: a recipe on a data set, on a GPU where there is one, resumed where it stopped."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from qanet.coco.people import open_train_and_val
from qanet.commandline import command_parser, emit, note
from qanet.datasets import DATA_FORMATS, DataSet, open_dataset, splits_of
from qanet.errors import QanetError
from qanet.labels import PERSON1, PERSON_BOX1
from qanet.train.data.people import Mixture, PeopleFolder
from qanet.train.data.scenery import Scenery
from qanet.train.detection.trainer import add_arguments, open_run
from qanet.train.recipes import RECIPES, Recipe, recipe


def _arguments() -> argparse.ArgumentParser:
    parser = command_parser(
        "train",
        "Train a recipe. Stop it when you like: the same command goes on. On several GPUs: torchrun --nproc-per-node N "
        "-m qanet train ...",
        epilog=f"Recipes: {', '.join(RECIPES)}. `qanet inspect RECIPE` shows one with its settings.",
    )
    parser.add_argument("recipe", metavar="RECIPE")
    parser.add_argument("settings", metavar="key=value", nargs="*", help="override the recipe, e.g. epochs=10")
    parser.add_argument("--data", required=True, metavar="DIR")
    parser.add_argument("--format", choices=(*DATA_FORMATS, "coco"), help="layout of the data; default: the recipe's")
    parser.add_argument("--output", metavar="DIR", help="default: runs/RECIPE")
    parser.add_argument("--initial-weights", metavar="FILE", type=Path, help="start from a .safetensors checkpoint")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    parser.add_argument("--workers", type=int, default=2, help="threads that load and augment")
    parser.add_argument("--deterministic", action="store_true", help="repeatable GPU kernels where there are such")
    group = parser.add_argument_group("people", "for parsing recipes: photographs beyond --data; see docs/training.md")
    group.add_argument(
        "--people",
        nargs=2,
        action="append",
        default=[],
        metavar=("DIR", "SHARE"),
        help="people labelled by silhouettes or teachers, and their share of those drawn; may be given again",
    )
    group.add_argument(
        "--scenery",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="photographs without people, to stand behind and before; may be given again",
    )
    add_arguments(parser)
    return parser


def main(argv: Sequence[str]) -> int:
    """Entry point."""
    args = _arguments().parse_args(argv)
    chosen = recipe(args.recipe, dict(_setting(text) for text in args.settings))
    detects = chosen.labels == PERSON_BOX1.name
    if not detects:
        train_data, val_data = _open(chosen, args.data, args.format or chosen.data_format)
        train_data, scenery = _with_people(train_data, args.people), Scenery(args.scenery)

    import cv2
    import torch

    from qanet.train.distributed import join_world, leave_world
    from qanet.train.trainer import Run, Trainer

    cv2.setNumThreads(1)  # the loader's threads are the parallelism
    torch.backends.cudnn.benchmark = not args.deterministic
    torch.use_deterministic_algorithms(args.deterministic, warn_only=True)
    folder = Path(args.output or f"runs/{chosen.name}")
    world, device = join_world(args.device)
    say = note if world.is_main else _silent

    def run_whole() -> Run:  # the trainer ends with it, before the group of processes does: see leave_world
        if detects:
            trainer: Trainer = open_run(chosen, args, folder, device, world)
        else:
            trainer = Trainer(
                chosen, train_data, val_data, folder, device, args.workers, args.initial_weights, world, scenery
            )
        if trainer.epoch:
            say(f"resuming {folder} after epoch {trainer.epoch} of {chosen.epochs}")
        parameters = sum(p.numel() for p in trainer.model.parameters())
        processes = f", {world.size} processes" if world.size > 1 else ""
        what = f"{len(trainer.loader.data)} {'images an epoch' if detects else 'people'}"
        say(f"{chosen.name}: {parameters / 1e6:.2f} M parameters, {what}, on {device}{processes}")
        return trainer.run(say)

    try:
        run = run_whole()
    finally:
        leave_world()
    document = {"weights": str(run.weights), "epochs": run.epochs, "seconds": round(run.seconds, 1)}
    if run.scores and not detects:
        document |= {"val_crop_miou": run.scores.miou, "val_crop_pixel_accuracy": run.scores.pixel_accuracy}
    if world.is_main:
        emit(
            args.json,
            document,
            f"wrote {run.weights} after {run.seconds / 3600:.2f} h\n"
            f"next: qanet export {run.weights} --output {chosen.name}.qanet",
        )
    return 0


def _open(chosen: Recipe, root: str, format: str) -> tuple[DataSet, DataSet | None]:
    if (format == "coco") != (chosen.labels == PERSON1.name):
        raise QanetError(f"recipe {chosen.name} does not learn from {format}", expected=chosen.data_format, got=format)
    if format == "coco":
        return open_train_and_val(root)
    train_data = open_dataset(root, format, chosen.labels, "train")
    return train_data, open_dataset(root, format, chosen.labels, "val") if "val" in splits_of(root, format) else None


def _with_people(annotated: DataSet, folders: list[list[str]]) -> DataSet:
    """The annotated set, and the folders of --people beside it."""
    if not folders:
        return annotated
    try:
        shares = [float(share) for _, share in folders]
    except ValueError as error:
        raise QanetError("bad share of people", expected="--people DIR SHARE, such as 0.4", got=error) from error
    people = [PeopleFolder(Path(folder), annotated.label_set) for folder, _ in folders]
    return Mixture(annotated, people, shares)


def _silent(_: str) -> None:
    """Processes other than the first report nothing."""


def _setting(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise QanetError("bad setting", expected="key=value", got=text)
    return key, value
