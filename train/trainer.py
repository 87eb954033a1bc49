"""The training loop: one run in one folder, saved after every epoch, resumed where it stopped."""

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qanet.datasets import DataSet
from qanet.errors import QanetError
from qanet.labels import LABEL_SETS
from qanet.train.data.loader import Batch, Loader
from qanet.train.data.people import partial_sets
from qanet.train.data.scenery import Scenery
from qanet.train.distributed import World
from qanet.train.losses import losses_of
from qanet.train.networks import build
from qanet.train.optimise import LEVEL_UNTIL, Ema, MixedPrecision, lr_factor, make_optimizer
from qanet.train.recipes import Recipe
from qanet.train.validate import CropScores, append_log, score_crops, write_pictures
from qanet.train.weights import frozen_modules, load_state, save_state, save_weights, take_over


@dataclass
class Run:
    """What a finished or resumed run reports."""

    weights: Path
    epochs: int
    seconds: float
    scores: CropScores | None


class Trainer:
    """One run in one folder.

    Files: `last.pt` to resume from, `log.csv`, `pictures/epoch-NNN.jpg`, and at the end `model.safetensors` (the
    averaged weights). The same recipe, data and seed give the same weights, stopped and resumed or not; on a GPU
    within what its kernels repeat.
    """

    def __init__(
        self,
        recipe: Recipe,
        train_data: DataSet,
        val_data: DataSet | None,
        folder: Path,
        device: torch.device,
        workers: int = 2,
        initial_weights: Path | None = None,
        world: World | None = None,
        scenery: Scenery | None = None,
    ):
        torch.manual_seed(recipe.seed)
        self.scenery = scenery
        self.recipe, self.val_data, self.folder, self.device = recipe, val_data, folder, device
        self.world = world or World()
        self.model = build(recipe)
        if initial_weights is not None:
            take_over(self.model, initial_weights)
        elif recipe.pretrained:
            self.model.backbone.load_pretrained()
        self.frozen = frozen_modules(self.model, recipe.frozen_stages)
        self.model.to(device, memory_format=torch.channels_last)
        self.ema = Ema(self.model, recipe.ema_decay)
        self.precision = MixedPrecision(recipe.amp, device.type)
        self.optimizer = make_optimizer(self.model, recipe)
        self.loader = self._open_loader(train_data, workers)
        total = recipe.epochs * len(self.loader)
        factor: Callable[[int], float] = lambda step: lr_factor(recipe, step, total)  # noqa: E731
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, factor)
        self.epoch, self.seconds = 0, 0.0
        self.state_path = folder / "last.pt"
        if self.state_path.exists():
            self._restore(load_state(self.state_path))
        self.parallel = self.world.parallel(self.model, device, recipe.sync_bn)

    def _open_loader(self, data: Any, workers: int) -> Loader:
        """Batches of the training data; another task has its own."""
        return Loader(data, self.recipe, workers, self.world, self.folder / "class-presence.npz", self.scenery)

    def _state(self) -> dict[str, Any]:
        return {
            "recipe": self.recipe.to_json(),
            "epoch": self.epoch,
            "seconds": self.seconds,
            "model": self.model.state_dict(),
            "ema": self.ema.model.state_dict(),
            "ema_steps": self.ema.steps,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.precision.scaler.state_dict(),
        }

    def _restore(self, state: dict[str, Any]) -> None:
        if not self._goes_on(Recipe.from_json(state["recipe"]), state["epoch"]):
            raise QanetError(
                f"{self.state_path} belongs to another recipe",
                expected=self.recipe.to_json(),
                got=state["recipe"],
                next_command="give the same key=value settings, or another --output",
            )
        self.model.load_state_dict(state["model"])
        self.ema.model.load_state_dict(state["ema"])
        self.ema.steps = state["ema_steps"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.precision.scaler.load_state_dict(state["scaler"])
        self.epoch, self.seconds = state["epoch"], state["seconds"]

    def _goes_on(self, theirs: Recipe, epoch: int) -> bool:
        """Whether that recipe's state belongs to this run; a "level" run may get another length while it is level."""
        if self.recipe.schedule == "level" and epoch <= LEVEL_UNTIL * min(theirs.epochs, self.recipe.epochs):
            theirs = dataclasses.replace(theirs, epochs=self.recipe.epochs)
        return theirs == self.recipe

    def run(self, report: Callable[[str], None] = print, until: int | None = None) -> Run:
        """Train to the recipe's last epoch, or to epoch `until`; stopping at any time loses one epoch at most.

        Raises:
            QanetError: a loss that is not finite, a broken file of the data set, a full disk; `last.pt` keeps the
                last whole epoch.
        """
        scores = None
        while self.epoch < min(self.recipe.epochs, until or self.recipe.epochs):
            start = time.monotonic()
            losses = self._train_epoch()
            trained_s = time.monotonic() - start
            self.epoch += 1
            if self.val_data:
                scores = self._validate()
            self.seconds += time.monotonic() - start
            if self.world.is_main:
                save_state(self.state_path, self._state())
                self._show(losses, scores, time.monotonic() - start, self.loader.waited_s / trained_s, report)
        weights = self.folder / "model.safetensors"
        if self.world.is_main:
            save_weights(weights, self.ema.model, self.recipe)
        return Run(weights, self.epoch, self.seconds, scores)

    def _train_epoch(self) -> dict[str, float]:
        from tqdm import tqdm

        self.parallel.train()
        for stage in self.frozen:
            stage.eval()
        sums: dict[str, float] = {}
        bar = tqdm(
            self.loader.epoch(self.epoch),
            total=len(self.loader),
            desc=f"epoch {self.epoch + 1}",
            leave=False,
            disable=None if self.world.is_main else True,
        )
        for step, batch in enumerate(bar):
            terms = self._step(batch, step)
            for key, value in terms.items():
                sums[key] = sums.get(key, 0.0) + value
            bar.set_postfix(loss=f"{terms['loss']:.3f}")
        means = torch.tensor(list(sums.values()), dtype=torch.float64, device=self.device)
        means = self.world.sum(means) / (len(self.loader) * self.world.size)
        return dict(zip(sums, means.tolist()))

    def _validate(self) -> Any:
        """Scores of the averaged weights on the validation data."""
        assert self.val_data is not None
        return score_crops(self.ema.model, self.val_data, self.recipe, self.device, self.world)

    def _losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """The weighted losses of a batch, each ()."""
        recipe = self.recipe
        rng = np.random.default_rng((recipe.seed, self.epoch, step, 2))
        row, column = (int(v) for v in rng.integers(0, recipe.loss_stride * recipe.lovasz_stride, 2))
        crops, labels = (part.to(self.device, non_blocking=True) for part in (batch.crops, batch.labels))
        with self.precision.autocast():
            logits, iou = self.parallel(self.model.normalise(crops).contiguous(memory_format=torch.channels_last))
        terms = losses_of(recipe.labels)(
            logits,
            iou,
            labels,
            stride=recipe.loss_stride,
            lovasz_stride=recipe.lovasz_stride,
            phase=(row, column),
            with_lovasz=self.epoch >= recipe.lovasz_from * recipe.epochs,
            partial=partial_sets(LABEL_SETS[recipe.labels]),
        )
        weights = {"ce": recipe.ce_weight, "lovasz": recipe.lovasz_weight, "iou": recipe.iou_weight}
        return {key: weights[key] * value for key, value in terms.items()}

    def _step(self, batch: Batch, step: int) -> dict[str, float]:
        terms = self._losses(batch, step)
        loss = torch.stack(list(terms.values())).sum()
        if not torch.isfinite(loss):
            values = {key: float(value.detach()) for key, value in terms.items()}
            raise QanetError(
                f"the loss is not finite at epoch {self.epoch + 1}, batch {step} ({', '.join(batch.names[:4])}, ...)",
                expected="finite",
                got=values,
                next_command=f"lower learning_rate; {self.state_path} holds the last good epoch",
            )
        self.precision.step(loss, self.model, self.optimizer, self.recipe.clip_norm)
        self.schedule.step()
        self.ema.update(self.model)
        return {"loss": float(loss.detach()), **{key: float(value.detach()) for key, value in terms.items()}}

    def _show(
        self,
        losses: dict[str, float],
        scores: CropScores | None,
        seconds: float,
        wait: float,
        report: Callable[[str], None],
    ) -> None:
        rate = max(group["lr"] for group in self.optimizer.param_groups)
        row = {"epoch": self.epoch, "seconds": seconds, "data_wait_share": wait, "learning_rate": rate, **losses}
        val = ""
        if scores and self.val_data:
            row |= {"val_miou": scores.miou, "val_pixel_accuracy": scores.pixel_accuracy}
            val = f"  val mIoU {scores.miou:.4f} acc {scores.pixel_accuracy:.4f}"
            picture = self.folder / "pictures" / f"epoch-{self.epoch:03d}.jpg"
            write_pictures(picture, self.ema.model, self.val_data, self.recipe, self.device)
        append_log(self.folder / "log.csv", row)
        terms = " ".join(f"{k} {v:.3f}" for k, v in losses.items())
        report(f"epoch {self.epoch}/{self.recipe.epochs}  {terms}{val}  {seconds:.0f} s, {wait:.1%} waiting for data")
