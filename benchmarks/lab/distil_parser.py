"""Adapt a parser to photographs of daily life while an earlier bundle keeps it good at street fashion.

    python -m qanet.benchmarks.lab.distil_parser ccp13-lite0 --data CCP --teacher OLD.qanet --people parts 0.45 \
        --people tagged 0.2 --scenery EMPTY --initial-weights START.safetensors --output runs/distilled epochs=9

Each batch holds hard crops of the mixture and, behind them, MILD whole crops of the annotated data. On the mild crops
the teacher's probabilities are a target beside the masks (KL divergence, weight KL_WEIGHT); with `--teach all` on the
hard ones too, which makes a small parser of a larger one. The two may have crops of different sizes: crops are made at
the larger size, and reduced for the other. Everything else is that of `qanet train`: files, settings, resume. The
averaged weights of each epoch are kept in `epochs/`.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from qanet.bundle import open_bundle
from qanet.commandline import CommandParser, note, run_module
from qanet.datasets import open_dataset
from qanet.errors import QanetError
from qanet.runtime.backends.base import KERNEL_TAIL_OUTPUTS
from qanet.runtime.backends.openvino import engine_from_graph
from qanet.train.data.loader import Batch, Loader
from qanet.train.data.people import Mixture, PeopleFolder
from qanet.train.data.scenery import Scenery
from qanet.train.recipes import recipe
from qanet.train.trainer import Trainer
from qanet.train.weights import save_weights

MILD = 4  # crops of a batch
KL_WEIGHT = 2.0
_HARD_SETTINGS = ("cut_probability", "scenery_probability", "cover_probability", "spoil_probability", "aspect_std")


class HardAndMild(Loader):
    """Batches of a mixture whose last MILD crops are of its annotated data, without the hard augmentation."""

    def __init__(self, data: Mixture, hard: Any, workers: int, folder: Path, scenery: Scenery | None):
        rest = hard.batch_size - MILD
        if rest < 1:
            raise QanetError("the batch is too small", expected=f"batch_size above {MILD}", got=hard.batch_size)
        people = (hard.epoch_people or len(data)) * rest // hard.batch_size
        self.mild: Loader | None = None
        super().__init__(
            data,
            dataclasses.replace(hard, batch_size=rest, epoch_people=people),
            workers,
            None,
            folder / "class-presence.npz",
            scenery,
        )
        mild = dataclasses.replace(
            hard,
            batch_size=MILD,
            epoch_people=super().__len__() * MILD,
            seed=hard.seed + 1,
            colour_jitter=0.2,
            **dict.fromkeys(_HARD_SETTINGS, 0.0),
        )
        self.mild = Loader(data.parts[0], mild, 1, None, folder / "class-presence-mild.npz", None)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """See `Loader.epoch`."""
        assert self.mild is not None
        for hard, mild in zip(super().epoch(epoch), self.mild.epoch(epoch)):
            crops, labels = torch.cat([hard.crops, mild.crops]), torch.cat([hard.labels, mild.labels])
            yield Batch(crops, labels, hard.names + mild.names)


def reduced(crops: Tensor, input_hw: tuple[int, int]) -> Tensor:
    """(N, H, W, 3) uint8 crops at a size that is no larger, each pixel the mean of its area."""
    import cv2

    if tuple(crops.shape[1:3]) == tuple(input_hw):
        return crops
    size = (input_hw[1], input_hw[0])
    return torch.from_numpy(np.stack([cv2.resize(c, size, interpolation=cv2.INTER_AREA) for c in crops.numpy()]))


class DistillingTrainer(Trainer):
    """A run whose mild crops a bundle teaches beside their masks."""

    def __init__(self, teacher: str, teach_all: bool, *args: Any, **options: Any):
        bundle = open_bundle(teacher)
        self.teacher = engine_from_graph(bundle.graph("fp32"), "fp32", KERNEL_TAIL_OUTPUTS, None)
        self.teacher_hw, self.taught = bundle.input_hw, 0 if teach_all else -MILD
        super().__init__(*args, **options)
        self._logits = torch.empty(0)
        self.model.register_forward_hook(lambda model, inputs, outputs: setattr(self, "_logits", outputs[0]))

    def _open_loader(self, data: Any, workers: int) -> Loader:
        made = dataclasses.replace(self.recipe, input_hw=max(self.recipe.input_hw, self.teacher_hw))
        return HardAndMild(data, made, workers, self.folder, self.scenery)

    def _losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        own = reduced(batch.crops, self.recipe.input_hw)
        terms = super()._losses(dataclasses.replace(batch, crops=own), step)
        crops = reduced(batch.crops[self.taught :], self.teacher_hw).numpy()
        taught = torch.from_numpy(self.teacher.run(crops, np.ones(len(crops), np.float32))["logits"])
        learnt = self._logits[self.taught :].float()
        taught = F.interpolate(taught, size=learnt.shape[2:], mode="bilinear", antialias=True)
        divergence = F.kl_div(learnt.log_softmax(1), taught.log_softmax(1), reduction="none", log_target=True)
        return terms | {"kl": KL_WEIGHT * divergence.sum(1).mean()}

    def _keep_epoch(self, scores: dict[str, float]) -> None:
        super()._keep_epoch(scores)
        save_weights(self.folder / "epochs" / f"{self.epoch:03d}.safetensors", self.ema.model, self.recipe)

    def _log(self, losses: dict[str, float], *rest: Any) -> None:
        note(f"KL divergence to the teacher {losses.pop('kl') / KL_WEIGHT:.4f}")
        super()._log(losses, *rest)


def main(argv: Sequence[str]) -> int:
    """Entry point."""
    parser = CommandParser(prog="python -m qanet.benchmarks.lab.distil_parser", description=__doc__.split("\n")[0])
    parser.add_argument("recipe", help="such as ccp13-lite0")
    parser.add_argument("--data", required=True, metavar="DIR", help="data set with masks, in CCP's layout")
    parser.add_argument("--teacher", required=True, metavar="NAME", help="bundle that teaches on the mild crops")
    parser.add_argument("--teach", choices=("mild", "all"), default="mild", help="the crops it teaches on (mild)")
    parser.add_argument(
        "--people", nargs=2, action="append", required=True, metavar=("DIR", "SHARE"), help="more people; repeatable"
    )
    parser.add_argument(
        "--scenery", action="append", default=[], type=Path, metavar="DIR", help="photographs without people"
    )
    parser.add_argument("--initial-weights", required=True, type=Path, metavar="FILE", help="checkpoint to start from")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder of the run; resumed")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="threads that load and augment (1)")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings of the recipe")
    args = parser.parse_args(argv)
    chosen = recipe(args.recipe, dict(text.split("=", 1) for text in args.settings))
    train_data, val_data = (open_dataset(args.data, "ccp", chosen.labels, split) for split in ("train", "val"))
    folders = [PeopleFolder(Path(root), train_data.label_set) for root, _ in args.people]
    mixture = Mixture(train_data, folders, [float(share) for _, share in args.people])
    scenery = Scenery(args.scenery) if args.scenery else None
    trainer = DistillingTrainer(
        args.teacher,
        args.teach == "all",
        chosen,
        mixture,
        val_data,
        args.output,
        torch.device("cpu"),
        workers=args.workers,
        initial_weights=args.initial_weights,
        scenery=scenery,
    )
    trainer.run(note)
    return 0


if __name__ == "__main__":
    run_module(main)
