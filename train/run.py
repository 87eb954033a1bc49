"""Train a recipe from Python: `train`, the function behind `qanet train`.

    from qanet.train.run import train

    result = train("ccp13-lite0", "CCP", "runs/first", epochs=10, batch_size=8)
    print(result.weights, result.scores)

Importing this file does not import torch.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from qanet.bundle import open_bundle
from qanet.coco.people import open_train_and_val
from qanet.datasets import PHOTO_FORMATS, DataSet, label_file, open_dataset, splits_of
from qanet.datasets.check import doubts_of_labels
from qanet.errors import QanetError
from qanet.labels import PERSON1, PERSON_BOX1, read_label_set
from qanet.paths import check_outputs
from qanet.train.data.people import Mixture, PeopleFolder
from qanet.train.data.scenery import Scenery
from qanet.train.recipes import Recipe, is_recipe_file, read_recipe
from qanet.train.recipes import recipe as recipe_of

if TYPE_CHECKING:
    from qanet.train.trainer import Trainer, TrainResult

CHECKPOINT = "model.safetensors"  # of a bundle
IMAGES_PER_EPOCH = 1024  # of a detection recipe


def train(
    recipe: str | Path | Recipe,
    data: str | Path | None = None,
    output: str | Path | None = None,
    *,
    format: str | None = None,
    initial_weights: str | Path | None = None,
    people: Sequence[tuple[str | Path, float]] = (),
    scenery: Sequence[str | Path] = (),
    looks: str | Path | None = None,
    more: Sequence[str | Path] = (),
    images: int = IMAGES_PER_EPOCH,
    device: str = "auto",
    workers: int = 2,
    deterministic: bool = False,
    report: Callable[[str], None] = print,
    **settings: object,
) -> "TrainResult":
    """Train a recipe on a data set; a run that was interrupted continues where it stopped.

    In a process that torchrun started it trains together with the others, and only the first reports and writes files.

    Args:
        recipe: name of a recipe, such as "ccp13-lite0" (`qanet.train.recipes.RECIPES`), a folder of `qanet new`, or a
            Recipe.
        data: folder of the data set; for a detection recipe a folder of photographs of people. A folder of `qanet new`
            is its own.
        output: folder of the run; default runs/RECIPE.
        format: layout of the data; default: the recipe's.
        initial_weights: a .safetensors checkpoint or a bundle to start from, in place of ImageNet weights.
        people: more people for a parsing recipe: (folder, share of the people drawn).
        scenery: folders of photographs without people, for the augmentation of a parsing recipe.
        looks: for a detection recipe: detections of teachers in the unlabelled photographs.
        more: for a detection recipe: further folders of photographs.
        images: for a detection recipe: training images per epoch.
        device: "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:N".
        workers: threads that load and augment.
        deterministic: repeatable GPU kernels where PyTorch has them.
        report: takes a line per epoch.
        settings: keys of the recipe with other values, such as epochs=10 or input_hw=(256, 192).
    Returns:
        The checkpoint, and the scores of the last validation.
    Raises:
        QanetError: an unknown recipe or setting, data that is missing or broken, a device that is missing, a run in
            `output` with another recipe, or a loss that is not finite.
    """
    chosen, data, start = _resolved(recipe, data, initial_weights, settings)
    folder = Path(output or f"runs/{chosen.name}")
    check_outputs((folder / name for name in ("last.pt", "log.csv", "model.safetensors")), read=[start, looks])
    is_detection = chosen.labels == PERSON_BOX1.name
    opened = None if is_detection else _open_people(chosen, data, format, people, scenery)

    from qanet.train.distributed import join_world, leave_world
    from qanet.train.trainer import Trainer

    world, place = join_world(device)
    say = report if world.is_main else _silent

    def run() -> "TrainResult":  # the trainer ends with this function, before the process group: see leave_world
        options: dict[str, Any] = {"workers": workers, "initial_weights": start, "world": world}
        if opened:
            trainer = Trainer(chosen, opened.train, opened.val, folder, place, scenery=opened.scenery, **options)
        else:
            from qanet.train.detection.trainer import DetectorTrainer, open_photographs

            photographs = open_photographs(list(map(Path, (data, *more))), Path(looks) if looks else None, images)
            trainer = DetectorTrainer(chosen, *photographs, folder, place, **options)
        if trainer.epoch:
            say(f"resuming {folder} after epoch {trainer.epoch} of {chosen.epochs}")
        if opened and opened.doubt:
            say(f"note: {opened.doubt}")
        say(_summary(trainer, "people" if opened else "images per epoch"))
        return trainer.run(say)

    try:
        with _library_settings(deterministic):
            return run()
    finally:
        leave_world()


def _resolved(
    recipe: str | Path | Recipe,
    data: str | Path | None,
    initial_weights: str | Path | None,
    settings: Mapping[str, object],
) -> tuple[Recipe, Path, Path | None]:
    """The recipe, the folder of the data and the checkpoint to start from."""
    if isinstance(recipe, Recipe):
        chosen = recipe.override(settings)
    elif is_recipe_file(recipe):
        file = read_recipe(recipe, settings)
        chosen, data, initial_weights = file.recipe, data or file.data, initial_weights or file.initial_weights
    else:
        chosen = recipe_of(str(recipe), settings)
    if data is None:
        raise QanetError("no data given", expected="--data DIR, or a folder of qanet new", got=chosen.name)
    if initial_weights is None or Path(initial_weights).is_file():
        return chosen, Path(data), Path(initial_weights) if initial_weights else None
    bundle = open_bundle(initial_weights)
    bundle.read(CHECKPOINT)  # its hash is checked
    return chosen, Path(data), bundle.path / CHECKPOINT


def _layout(chosen: Recipe, root: Path) -> str:
    """The recipe's layout; that of a folder with its own label set, which the recipe must have."""
    own = label_file(root)
    if own is None or chosen.data_format not in PHOTO_FORMATS:
        return chosen.data_format
    if read_label_set(own).classes != chosen.label_set.classes:
        raise QanetError(
            f"{root} has other classes than recipe {chosen.name}",
            expected=", ".join(chosen.label_set.classes),
            got=", ".join(read_label_set(own).classes),
            next_command=f"add labels={own}",
        )
    return "folder"


class _People(NamedTuple):
    """What a parsing recipe learns from; `doubt` is what `qanet check` would remark on the label maps."""

    train: DataSet
    val: DataSet | None
    scenery: Scenery
    doubt: str


def _open_people(
    chosen: Recipe,
    root: Path,
    format: str | None,
    people: Sequence[tuple[str | Path, float]],
    scenery: Sequence[str | Path],
) -> _People:
    """The data set with the further people and the scenery; arguments as of `train`."""
    data, val = _open_data(chosen, root, format or _layout(chosen, root))
    doubt = _doubt(data, root)
    if people:
        folders = [PeopleFolder(Path(folder), data.label_set) for folder, _ in people]
        data = Mixture(data, folders, [share for _, share in people])
    return _People(data, val, Scenery([Path(folder) for folder in scenery]), doubt)


def _open_data(chosen: Recipe, root: Path, format: str) -> tuple[DataSet, DataSet | None]:
    """The training and, where the data has it, the validation split."""
    if (format == "coco") != (chosen.labels == PERSON1.name):
        raise QanetError(f"recipe {chosen.name} does not learn from {format}", expected=chosen.data_format, got=format)
    if format == "coco":
        return open_train_and_val(root)
    data = open_dataset(root, format, chosen.label_set, "train")
    has_val = "val" in splits_of(root, format)
    return data, open_dataset(root, format, chosen.label_set, "val") if has_val else None


def _doubt(data: DataSet, root: Path) -> str:
    """What `qanet check` would remark on the label maps, in one line.

    Raises:
        QanetError: nothing right can be learnt from them.
    """
    problems, remarks = doubts_of_labels(data)
    if problems:
        raise QanetError(f"{root}: {problems[0]}", next_command=f"qanet check {root}")
    return "; ".join(remarks)


@contextmanager
def _library_settings(deterministic: bool) -> Iterator[None]:
    """OpenCV on one thread (the loader's threads are the parallelism) and PyTorch's choice of kernels; undone after."""
    import cv2
    import torch

    threads, benchmark = cv2.getNumThreads(), torch.backends.cudnn.benchmark
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    cv2.setNumThreads(1)
    torch.backends.cudnn.benchmark = not deterministic
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)
        torch.backends.cudnn.benchmark = benchmark
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def _summary(trainer: "Trainer", unit: str) -> str:
    parameters = sum(p.numel() for p in trainer.model.parameters())
    processes = f", {trainer.world.size} processes" if trainer.world.size > 1 else ""
    size = f"{parameters / 1e6:.2f} M parameters, {len(trainer.loader.data)} {unit}"
    in_type = {"off": "FP32"}.get(trainer.amp, trainer.amp.upper())
    return f"{trainer.recipe.name}: {size}, on {trainer.device}{processes} in {in_type}"


def _silent(_: str) -> None:
    """Report nothing: for all processes but the first."""
