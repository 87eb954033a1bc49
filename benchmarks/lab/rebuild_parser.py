"""ccp13-lite0 for photographs of daily life, from its sources; steps whose file exists are skipped.

    python -m qanet.benchmarks.lab.rebuild_parser --data CCP --tagged TAGGED --people PEOPLE --models MODELS \
        --initial-weights FIRST.safetensors --output runs/parser

CCP: photographs with masks. TAGGED: photos/ and tags.json of photographs with tags alone. PEOPLE: labelled/, partial/,
unlabelled/ and without_people/ of photographs of real people (docs/training.md names the sources). MODELS: the teachers
yolox_nano.onnx and selfie_segmentation.tflite. FIRST: a checkpoint of ccp13-lite0 that was trained on CCP alone. Each
step is a command of its own, printed before it runs. The shipped weights came from the same steps in shorter runs,
which their card lists.
"""

import shlex
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from qanet.commandline import CommandParser, note, run_module
from qanet.errors import QanetError

ONE_SCENE = ("bav_classroom", "cctv_human")  # folders of few scenes: silhouettes, drawn seldom, no parts
SCENERY = ("without_people", "labelled/coco128_train2017")  # of the second those without anybody
MEAN = (0.2, 0.25, 0.55)  # shares of the start, the first and the second run in the end: street fashion is kept so
HARD = (
    "frozen_stages=4",
    "loss_stride=2",
    "lovasz_from=0",
    "bystander_probability=0.3",
    "cut_probability=0.5",
    "scenery_probability=0.4",
    "cover_probability=0.25",
    "spoil_probability=0.7",
    "aspect_std=0.15",
)


@dataclass(frozen=True)
class Step:
    """A command of this project, and the file that it writes last."""

    module: str
    arguments: tuple[str, ...]
    made: Path

    @property
    def command(self) -> list[str]:
        """The command line."""
        return [sys.executable, "-m", self.module, *self.arguments]


def boxes_steps(args: Namespace) -> Iterator[Step]:
    """Boxes by the detector for photographs that have none."""
    for folder in sorted(p for p in (args.people / "unlabelled").iterdir() if p.is_dir()):
        made = args.output / "boxes" / folder.name
        yield Step(
            "qanet.benchmarks.lab.detector_labels",
            (str(folder / "images"), "--detector", str(args.models / "yolox_nano.onnx"), "--output", str(made)),
            made / "persons.json",
        )


def boxed_folders(args: Namespace) -> list[Path]:
    """Every folder with boxes, given or made by `boxes_steps`."""
    kinds = (args.people / "labelled", args.people / "partial")
    given = [p for kind in kinds if kind.is_dir() for p in sorted(kind.iterdir()) if p.is_dir()]
    return given + [step.made.parent for step in boxes_steps(args)]


def steps(args: Namespace) -> Iterator[Step]:
    """All steps, in order."""
    out = args.output
    yield from boxes_steps(args)
    for name, several in (("silhouettes", True), ("silhouettes-scenes", False)):
        folders = [str(p) for p in boxed_folders(args) if (p.name not in ONE_SCENE) == several]
        yield Step(
            "qanet.benchmarks.lab.silhouettes",
            (*folders, "--model", str(args.models / "selfie_segmentation.tflite"), "--output", str(out / name)),
            out / name / "people.json",
        )
    yield Step(
        "qanet.benchmarks.lab.pseudo_labels",
        (
            str(args.initial_weights),
            "--photos",
            str(args.tagged / "photos"),
            "--tags",
            str(args.tagged / "tags.json"),
            "--tag-classes",
            "ccp59",
            "--output",
            str(out / "tagged"),
        ),
        out / "tagged" / "people.json",
    )
    first, second = out / "first" / "model.safetensors", out / "second" / "model.safetensors"
    yield _training(args, first, args.initial_weights, "silhouettes", args.first)
    yield Step(
        "qanet.benchmarks.lab.people_parts",
        (str(first), "--people", str(out / "silhouettes"), "--scales", "1", "--output", str(out / "parts")),
        out / "parts" / "people.json",
    )
    yield _training(args, second, first, "parts", args.second)
    shares = zip((args.initial_weights, first, second), MEAN)
    yield Step(
        "qanet.train.weights",
        (*(f"{path}:{share}" for path, share in shares), "--output", str(out / "model.safetensors")),
        out / "model.safetensors",
    )


def _training(args: Namespace, weights: Path, start: Path, people: str, settings: str) -> Step:
    out = args.output
    shares = {"tagged": "0.3", people: "0.3", "silhouettes-scenes": "0.05"}
    folders = [text for name, share in shares.items() for text in ("--people", str(out / name), share)]
    scenery = [text for part in SCENERY for text in ("--scenery", str(args.people / part))]
    return Step(
        "qanet",
        (
            "train",
            "ccp13-lite0",
            "--data",
            str(args.data),
            *folders,
            *scenery,
            "--initial-weights",
            str(start),
            "--output",
            str(weights.parent),
            *HARD,
            *shlex.split(settings),
        ),
        weights,
    )


def main(argv: Sequence[str]) -> int:
    """Entry point."""
    parser = CommandParser(prog="python -m qanet.benchmarks.lab.rebuild_parser", description=__doc__.split("\n")[0])
    for name, what in (
        ("--data", "Clothing Co-Parsing, with masks"),
        ("--tagged", "photos/ and tags.json"),
        ("--people", "photographs of real people"),
        ("--models", "the teachers"),
        ("--initial-weights", "a checkpoint of ccp13-lite0"),
        ("--output", "everything that is made"),
    ):
        parser.add_argument(name, required=True, type=Path, help=what)
    parser.add_argument("--first", default="epochs=8 epoch_people=768 learning_rate=1.2e-3", metavar="KEY=VALUE ...")
    parser.add_argument("--second", default="epochs=14 epoch_people=768 learning_rate=1e-3", metavar="KEY=VALUE ...")
    parser.add_argument("--dry-run", action="store_true", help="print the commands without running them")
    args = parser.parse_args(argv)
    for step in steps(args):
        if step.made.exists():
            note(f"there already: {step.made}")
            continue
        note(shlex.join(step.command))
        if not args.dry_run and subprocess.run(step.command, check=False).returncode:
            raise QanetError(f"{step.module} failed", expected=str(step.made), got="its message above")
    return 0


if __name__ == "__main__":
    run_module(main)
