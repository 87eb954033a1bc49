"""The training loop: one run in one folder, saved after every epoch, resumed where it stopped."""

import csv
import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from qanet.datasets import DataSet
from qanet.errors import QanetError
from qanet.train.data.loader import Batch, Loader
from qanet.train.data.people import partial_sets
from qanet.train.data.scenery import Scenery
from qanet.train.distributed import World
from qanet.train.losses import losses_of
from qanet.train.networks import build
from qanet.train.optimise import LEVEL_UNTIL, Ema, MixedPrecision, lr_factor, make_optimizer, timed_steps_s
from qanet.train.recipes import Recipe
from qanet.train.validate import score_crops, write_pictures
from qanet.train.weights import frozen_modules, load_state, save_state, save_weights, take_over

_SCORE_NAMES = {"val_crop_miou": "mIoU of crops", "val_crop_pixel_accuracy": "accuracy of crops", "val_ap50": "AP50"}


@dataclass(frozen=True)
class TrainResult:
    """The outcome of a run that finished, or had finished before.

    Attributes:
        weights: the checkpoint, model.safetensors: the averaged weights and the recipe.
        recipe: the recipe of the run, settings included.
        epochs: epochs trained in all.
        seconds: time of all epochs, those before a resume included.
        scores: of the last validation in this process, in 0..1: "val_crop_miou" and "val_crop_pixel_accuracy", or
            "val_ap50" of a detector; empty if there was none.
    """

    weights: Path
    recipe: Recipe
    epochs: int
    seconds: float
    scores: dict[str, float]


class Trainer:
    """One run in one folder.

    Files: `last.pt` to resume from, `log.csv`, `pictures/epoch-NNN.jpg`, and at the end `model.safetensors` (the
    averaged weights). `last.pt` holds tensors and plain data only, so it outlives changes of this code. The same
    recipe, data and seed give the same weights, whether the run was interrupted or not; on a GPU as far as its kernels
    are repeatable.

    Args:
        recipe: the recipe, settings included.
        train_data, val_data: data sets; without `val_data` nothing is validated.
        folder: of the run; a `last.pt` in it is resumed.
        workers: threads that load and augment.
        initial_weights: a .safetensors checkpoint to start from, in place of ImageNet weights.
        world: this process among several.
        scenery: photographs without people, for the augmentation.
    Raises:
        QanetError: settings that do not fit, a checkpoint of another backbone, or a `last.pt` of another recipe.
    """

    log_fields: tuple[str, ...] = (
        "epoch",
        "loss",
        "ce",
        "lovasz",
        "iou",
        "learning_rate",
        "val_crop_miou",
        "val_crop_pixel_accuracy",
        "seconds",
        "data_wait_share",
    )

    def __init__(
        self,
        recipe: Recipe,
        train_data: DataSet,
        val_data: DataSet | None,
        folder: Path,
        device: torch.device,
        *,
        workers: int = 2,
        initial_weights: Path | None = None,
        world: World | None = None,
        scenery: Scenery | None = None,
    ):
        torch.manual_seed(recipe.seed)
        self.recipe, self.val_data, self.folder, self.device = recipe, val_data, folder, device
        self.world, self.scenery = world or World(), scenery
        self.model = build(recipe)
        if initial_weights is not None:
            take_over(self.model, initial_weights, recipe.label_set)
        elif recipe.pretrained:
            self.model.backbone.load_pretrained()
        self.frozen: list[nn.Module] = frozen_modules(self.model, recipe.frozen_stages)
        self.model.to(device, memory_format=torch.channels_last)
        self.ema = Ema(self.model, recipe.ema_decay)
        self.state_path = folder / "last.pt"
        state = load_state(self.state_path) if self.state_path.exists() else None
        self.amp = recipe.amp if recipe.amp != "auto" else (state or {}).get("amp") or self._faster_amp()
        self.precision = MixedPrecision(self.amp, device.type)
        self.optimizer = make_optimizer(self.model, recipe)
        self.loader = self._open_loader(train_data, workers)
        total = recipe.epochs * len(self.loader)
        factor: Callable[[int], float] = lambda step: lr_factor(recipe, step, total)  # noqa: E731
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, factor)
        self.epoch, self.seconds = 0, 0.0
        if state is not None:
            self._restore(state)
        self.parallel = self.world.parallel(self.model, device, recipe.sync_bn)

    def _faster_amp(self) -> str:
        """The autocast type of the faster step, the same for all processes."""
        seconds = timed_steps_s(self.model, self.recipe, self.device)
        total = self.world.sum(torch.tensor(list(seconds.values()), dtype=torch.float64, device=self.device))
        return list(seconds)[int(total.argmin())]

    def run(self, report: Callable[[str], None] = print, until: int | None = None) -> TrainResult:
        """Train to the recipe's last epoch, or to epoch `until`. Interrupted, it loses at most one epoch.

        Raises:
            QanetError: a loss that is not finite, a broken file of the data set, a full disk; `last.pt` keeps the
                last whole epoch.
        """
        scores: dict[str, float] = {}
        while self.epoch < min(self.recipe.epochs, until or self.recipe.epochs):
            start = time.monotonic()
            losses = self._train_epoch()
            trained_s = time.monotonic() - start
            self.epoch += 1
            scores = self._validate() if self.val_data else {}
            self.seconds += time.monotonic() - start
            if self.world.is_main:
                save_state(self.state_path, self._state())
                seconds = time.monotonic() - start
                self._keep_epoch(scores)
                self._log(losses, scores, seconds, self.loader.waited_s / trained_s, report)
        weights = self.folder / "model.safetensors"
        if self.world.is_main:
            save_weights(weights, self.ema.model, self.recipe)
        return TrainResult(weights, self.recipe, self.epoch, self.seconds, scores)

    # A task other than parsing overrides the next four.

    def _open_loader(self, data: Any, workers: int) -> Loader:
        """Batches of the training data."""
        return Loader(data, self.recipe, workers, self.world, self.folder / "class-presence.npz", self.scenery)

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
            partial=partial_sets(recipe.label_set),
        )
        weights = {"ce": recipe.ce_weight, "lovasz": recipe.lovasz_weight, "iou": recipe.iou_weight}
        return {key: weights[key] * value for key, value in terms.items()}

    def _validate(self) -> dict[str, float]:
        """Scores of the averaged weights on the validation data; empty if this epoch has no validation."""
        assert self.val_data is not None
        return score_crops(self.ema.model, self.val_data, self.recipe, self.device, self.world, self.precision)

    def _keep_epoch(self, scores: dict[str, float]) -> None:
        """Write the further files of an epoch, after the state and before the log."""
        if scores and self.val_data:
            picture = self.folder / "pictures" / f"epoch-{self.epoch:03d}.jpg"
            write_pictures(picture, self.ema.model, self.val_data, self.recipe, self.device)

    def _train_epoch(self) -> dict[str, float]:
        """Train one epoch; the mean losses over its batches and all processes."""
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

    def _step(self, batch: Batch, step: int) -> dict[str, float]:
        """One optimiser step; the losses and their sum, "loss"."""
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

    def _log(
        self,
        losses: dict[str, float],
        scores: dict[str, float],
        seconds: float,
        wait: float,
        report: Callable[[str], None],
    ) -> None:
        """Report an epoch and add its line to log.csv."""
        rate = max(group["lr"] for group in self.optimizer.param_groups)
        row = {"epoch": self.epoch, "seconds": seconds, "data_wait_share": wait, "learning_rate": rate}
        _append_csv(self.folder / "log.csv", {**row, **losses, **scores}, self.log_fields)
        terms = " ".join(f"{key} {value:.3f}" for key, value in losses.items())
        val = " ".join(f"{_SCORE_NAMES[key]} {value:.4f}" for key, value in scores.items())
        report(
            f"epoch {self.epoch}/{self.recipe.epochs}  {terms}{f'  val {val}' if val else ''}  "
            f"{seconds:.0f} s, {wait:.1%} waiting for data"
        )

    def _state(self) -> dict[str, Any]:
        """The state to resume from: tensors, numbers, strings and containers of them."""
        return {
            "recipe": self.recipe.to_json(),
            "amp": self.amp,
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
        if not self._continues(Recipe.from_json(state["recipe"]), state["epoch"]):
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

    def _continues(self, before: Recipe, epoch: int) -> bool:
        """Whether this run continues one of that recipe: the same recipe; while a "level" schedule is level, the number
        of epochs may differ."""
        if self.recipe.schedule == "level" and epoch <= LEVEL_UNTIL * min(before.epochs, self.recipe.epochs):
            before = dataclasses.replace(before, epochs=self.recipe.epochs)
        return before == self.recipe


def _append_csv(path: Path, row: dict[str, float], fields: tuple[str, ...]) -> None:
    """Add a line with these columns, empty where the row has no value; a new file gets a header."""
    fresh = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, fields)
        if fresh:
            writer.writeheader()
        writer.writerow({key: float(f"{value:.6g}") for key, value in row.items()})
