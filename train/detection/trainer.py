"""The training run of the detector: the project's loop with the detector's batches, losses and scores."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qanet.train.data.loader import Batch, Loader
from qanet.train.detection.data import DetectionData, DetectionLoader
from qanet.train.detection.losses import detection_losses
from qanet.train.detection.photographs import Album
from qanet.train.detection.validate import score_detector
from qanet.train.loop.distributed import World
from qanet.train.loop.progress import append_log
from qanet.train.loop.trainer import Trainer
from qanet.train.networks.detector import cells_of
from qanet.train.recipe import Recipe
from qanet.train.weights.checkpoint import save_weights

LOG_FIELDS = ("epoch", "loss", "score", "box", "iou", "learning_rate", "val_ap50", "seconds", "data_wait_share")


VALIDATED_EVERY = 3


class DetectorTrainer(Trainer):
    """A run as `Trainer` makes it: resumable, averaged weights, `model.safetensors` at the end.

    Besides it keeps the averaged weights of every epoch, `epochs/NNN.safetensors`, to choose among by `val`.

    Args:
        val: photographs held back, for AP at IoU 0.5 after every VALIDATED_EVERY epochs and after the last.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: DetectionData,
        val: Album,
        folder: Path,
        device: torch.device,
        workers: int = 2,
        initial_weights: Path | None = None,
        world: World | None = None,
    ):
        self.val = val
        super().__init__(recipe, data, None, folder, device, workers, initial_weights, world)  # type: ignore[arg-type]
        self.val_data: Any = val if len(val) else None

    def _open_loader(self, data: Any, workers: int) -> Loader:
        return DetectionLoader(data, self.recipe, workers, self.world)

    def _losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        images, truths = (part.to(self.device, non_blocking=True) for part in (batch.crops, batch.labels))
        with self.precision.autocast():
            raw = self.parallel(self.model.normalise(images).contiguous(memory_format=torch.channels_last))
        return detection_losses(raw, truths, *cells_of(images.shape[1:3], self.device))

    def _validate(self) -> Any:
        if self.epoch % VALIDATED_EVERY and self.epoch < self.recipe.epochs:
            return None
        network: Any = self.ema.model
        return score_detector(network, self.val, self.recipe.input_hw, self.device)

    def _show(
        self, losses: dict[str, float], scores: Any, seconds: float, wait: float, report: Callable[[str], None]
    ) -> None:
        save_weights(self.folder / "epochs" / f"{self.epoch:03d}.safetensors", self.ema.model, self.recipe)
        rate = max(group["lr"] for group in self.optimizer.param_groups)
        row = {"epoch": self.epoch, "seconds": seconds, "data_wait_share": wait, "learning_rate": rate, **losses}
        if scores is not None:
            row["val_ap50"] = scores
        append_log(self.folder / "log.csv", row, LOG_FIELDS)
        terms = " ".join(f"{k} {v:.3f}" for k, v in losses.items())
        val = f"  val AP50 {scores:.4f}" if scores is not None else ""
        report(f"epoch {self.epoch}/{self.recipe.epochs}  {terms}{val}  {seconds:.0f} s, {wait:.1%} waiting for data")
