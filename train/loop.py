"""The training loop: AMP, channels_last, one-cycle schedule, EMA, a CSV log, a checkpoint an epoch, and resuming."""

import csv
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qanet.datasets import PhotoFolder
from qanet.errors import QanetError
from qanet.train.checkpoint import load_state, save_state, save_weights
from qanet.train.data.loader import Loader
from qanet.train.ema import Ema
from qanet.train.losses import parsing_losses
from qanet.train.networks.parser import ParsingNetwork, build
from qanet.train.recipes import Recipe
from qanet.train.validate import CropScores, score_crops

_LOG_FIELDS = ("epoch", "loss", "ce", "lovasz", "iou", "val_miou", "val_pixel_accuracy", "seconds", "waited_s")


@dataclass
class Run:
    """What a finished or resumed run reports."""

    weights: Path
    epochs: int
    seconds: float
    scores: CropScores | None


def choose_device(name: str = "auto") -> torch.device:
    """A CUDA GPU where there is one, else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)


class Trainer:
    """One run in one folder: `last.pt` to resume from, `log.csv`, `model.safetensors` (the averaged weights)."""

    def __init__(
        self, recipe: Recipe, train_data: PhotoFolder, val_data: PhotoFolder | None, folder: Path,
        device: torch.device, workers: int = 2,
    ):  # fmt: skip
        torch.manual_seed(recipe.seed)
        self.recipe, self.val_data, self.folder, self.device = recipe, val_data, folder, device
        self.loader = Loader(train_data, recipe, workers)
        self.model = build(recipe)
        if recipe.pretrained:
            self.model.backbone.load_pretrained()
        self.model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema = Ema(self.model, recipe.ema_decay)
        self.optimizer = torch.optim.AdamW(_parameter_groups(self.model, recipe), lr=recipe.learning_rate)
        self.total_steps = recipe.epochs * len(self.loader)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._lr_factor)
        self.epoch, self.seconds = 0, 0.0
        self.state_path = folder / "last.pt"
        if self.state_path.exists():
            self._restore(load_state(self.state_path))

    def _lr_factor(self, step: int) -> float:
        warmup = max(1, round(self.recipe.warmup_share * self.total_steps))
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, self.total_steps - warmup)))

    def _state(self) -> dict[str, Any]:
        return {
            "recipe": self.recipe.to_json(), "epoch": self.epoch, "seconds": self.seconds,
            "model": self.model.state_dict(), "ema": self.ema.model.state_dict(), "ema_steps": self.ema.steps,
            "optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict(),
        }  # fmt: skip

    def _restore(self, state: dict[str, Any]) -> None:
        if state["recipe"] != self.recipe.to_json():
            raise QanetError(
                f"{self.state_path} belongs to another recipe", expected=self.recipe.to_json(), got=state["recipe"],
                next_command="give the same key=value settings, or another --output",
            )  # fmt: skip
        self.model.load_state_dict(state["model"])
        self.ema.model.load_state_dict(state["ema"])
        self.ema.steps = state["ema_steps"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.epoch, self.seconds = state["epoch"], state["seconds"]

    def run(self, report: Callable[[str], None] = print) -> Run:
        """Train to the recipe's last epoch; saves after every epoch, so stopping loses one epoch at most."""
        scores = None
        while self.epoch < self.recipe.epochs:
            start = time.monotonic()
            losses = self._train_epoch()
            self.epoch += 1
            scores = score_crops(self.ema.model, self.val_data, self.recipe, self.device) if self.val_data else None
            self.seconds += time.monotonic() - start
            save_state(self.state_path, self._state())
            self._log(losses, scores, time.monotonic() - start)
            val = f"  val mIoU {scores.miou:.4f} acc {scores.pixel_accuracy:.4f}" if scores else ""
            terms = " ".join(f"{k} {v:.3f}" for k, v in losses.items())
            wait = self.loader.waited_s / max(time.monotonic() - start, 1e-9)
            report(f"epoch {self.epoch}/{self.recipe.epochs}  {terms}{val}  data wait {wait:.1%}")
        weights = self.folder / "model.safetensors"
        save_weights(weights, self.ema.model, self.recipe)
        return Run(weights, self.epoch, self.seconds, scores)

    def _train_epoch(self) -> dict[str, float]:
        from tqdm import tqdm

        self.model.train()
        sums: dict[str, float] = {}
        batches = self.loader.epoch(self.epoch)
        bar = tqdm(batches, total=len(self.loader), desc=f"epoch {self.epoch + 1}", leave=False, disable=None)
        for step, (crops, labels) in enumerate(bar):
            terms = self._step(crops.to(self.device), labels.to(self.device), step)
            for key, value in terms.items():
                sums[key] = sums.get(key, 0.0) + value
            bar.set_postfix(loss=f"{terms['loss']:.3f}")
        return {k: v / len(self.loader) for k, v in sums.items()}

    def _step(self, crops: Tensor, labels: Tensor, step: int) -> dict[str, float]:
        recipe = self.recipe
        rng = np.random.default_rng((recipe.seed, self.epoch, step, 2))
        phase = tuple(int(v) for v in rng.integers(0, recipe.lovasz_stride, 2))
        dtype = torch.bfloat16
        with torch.autocast(self.device.type, dtype):
            logits, iou = self.model(self.model.normalise(crops).contiguous(memory_format=torch.channels_last))
        terms = parsing_losses(
            logits, iou, labels, recipe.lovasz_stride, (phase[0], phase[1]),
            with_lovasz=self.epoch >= recipe.lovasz_from * recipe.epochs,
        )  # fmt: skip
        weights = {"ce": recipe.ce_weight, "lovasz": recipe.lovasz_weight, "iou": recipe.iou_weight}
        loss = torch.stack([weights[key] * value for key, value in terms.items()]).sum()
        if not torch.isfinite(loss):
            values = {key: float(value.detach()) for key, value in terms.items()}
            raise QanetError(
                f"the loss is not finite at epoch {self.epoch + 1}, batch {step}", expected="finite", got=values,
                next_command=f"lower learning_rate; {self.state_path} holds the last good epoch",
            )  # fmt: skip
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip_norm)
        self.optimizer.step()
        self.schedule.step()
        self.ema.update(self.model)
        return {"loss": float(loss.detach()), **{key: float(value.detach()) for key, value in terms.items()}}

    def _log(self, losses: dict[str, float], scores: CropScores | None, seconds: float) -> None:
        path = self.folder / "log.csv"
        fresh = not path.exists()
        row: dict[str, float] = {"epoch": self.epoch, "seconds": seconds, "waited_s": self.loader.waited_s, **losses}
        if scores:
            row |= {"val_miou": scores.miou, "val_pixel_accuracy": scores.pixel_accuracy}
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, _LOG_FIELDS)
            if fresh:
                writer.writeheader()
            writer.writerow({k: round(v, 5) for k, v in row.items()})


def _parameter_groups(model: ParsingNetwork, recipe: Recipe) -> list[dict[str, Any]]:
    """Backbone at a lower rate; no weight decay on biases and norms."""
    groups: list[dict[str, Any]] = []
    for in_backbone in (True, False):
        for decayed in (True, False):
            chosen = [
                p for name, p in model.named_parameters()
                if name.startswith("backbone.") == in_backbone and (p.ndim > 1) == decayed
            ]  # fmt: skip
            factor = recipe.backbone_lr_factor if in_backbone else 1.0
            decay = recipe.weight_decay if decayed else 0.0
            groups.append({"params": chosen, "lr": recipe.learning_rate * factor, "weight_decay": decay})
    return groups
