"""`qanet train`: a recipe on a data set, on a GPU where there is one, resumed where it stopped."""

from collections.abc import Sequence
from pathlib import Path

from qanet.cli.commandline import command_parser, emit, note
from qanet.datasets import PhotoFolder
from qanet.errors import QanetError
from qanet.labels import label_set
from qanet.train.recipes import RECIPES, recipe


def main(argv: Sequence[str]) -> int:
    """Entry point."""
    parser = command_parser(
        "train", f"Train a recipe ({', '.join(RECIPES)}). Stop it when you like: the same command goes on."
    )
    parser.add_argument("recipe", metavar="RECIPE")
    parser.add_argument("settings", metavar="key=value", nargs="*", help="override the recipe, e.g. epochs=10")
    parser.add_argument("--data", required=True, metavar="DIR", help="photos/, labels/, train.txt, val.txt")
    parser.add_argument("--output", metavar="DIR", help="default: runs/RECIPE")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    parser.add_argument("--workers", type=int, default=2, help="threads that load and augment")
    args = parser.parse_args(argv)
    chosen = recipe(args.recipe, dict(_setting(text) for text in args.settings))
    labels = label_set(chosen.labels)
    train_data = PhotoFolder(args.data, labels, "train")
    val_data = PhotoFolder(args.data, labels, "val") if (Path(args.data) / "val.txt").exists() else None

    import cv2

    from qanet.train.loop import Trainer, choose_device

    cv2.setNumThreads(1)  # the loader's threads are the parallelism
    folder = Path(args.output or f"runs/{chosen.name}")
    trainer = Trainer(chosen, train_data, val_data, folder, choose_device(args.device), args.workers)
    if trainer.epoch:
        note(f"resuming {folder} after epoch {trainer.epoch} of {chosen.epochs}")
    parameters = sum(p.numel() for p in trainer.model.parameters())
    note(f"{chosen.name}: {parameters / 1e6:.2f} M parameters, {len(train_data)} images, on {trainer.device}")
    run = trainer.run(note)
    scores = run.scores
    document = {"weights": str(run.weights), "epochs": run.epochs, "seconds": round(run.seconds, 1)}
    if scores:
        document |= {"val_crop_miou": scores.miou, "val_crop_pixel_accuracy": scores.pixel_accuracy}
    emit(args.json, document, f"wrote {run.weights} after {run.seconds / 3600:.2f} h\n"
         f"next: qanet export {run.weights} --output {chosen.name}.qanet")  # fmt: skip
    return 0


def _setting(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise QanetError("bad setting", expected="key=value", got=text)
    return key, value
