"""The training run of the detector: the project's loop with the detector's batches, losses and scores."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qanet.boxes import suppress
from qanet.errors import QanetError
from qanet.letterbox import letterboxed
from qanet.metrics.detection import DetectedImage, average_precision
from qanet.train.data.loader import Batch, Loader
from qanet.train.detection.data import DetectionData, DetectionLoader
from qanet.train.detection.losses import detection_losses
from qanet.train.detection.photographs import Album
from qanet.train.distributed import World
from qanet.train.networks.detector import DetectorNetwork, cells_of, scores_of
from qanet.train.recipes import Recipe
from qanet.train.trainer import Trainer
from qanet.train.validate import append_log
from qanet.train.weights import save_weights

if TYPE_CHECKING:
    import torch

    from qanet.train.distributed import World


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


NMS_IOU = 0.5
_CANDIDATES = 300


@torch.inference_mode()
def detect(
    network: DetectorNetwork, image: NDArray[np.uint8], hw: tuple[int, int], device: torch.device
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Boxes (N, 4) in the image's pixels and scores (N,) after suppression."""
    canvas, ratio = letterboxed(image, hw)
    batch = network.normalise(torch.from_numpy(canvas)[None].to(device)).contiguous(memory_format=torch.channels_last)
    with torch.autocast(device.type, torch.bfloat16):
        raw = network(batch)
    scores, order = scores_of(raw)[0].float().sort(descending=True)
    best = order[:_CANDIDATES]
    boxes = (raw.boxes[0, best] / ratio).cpu().numpy().astype(np.float32)
    values = scores[:_CANDIDATES].cpu().numpy()
    boxes = np.clip(boxes, 0, np.array([image.shape[1], image.shape[0]] * 2, np.float32))
    kept = suppress(boxes, values, NMS_IOU)
    return boxes[kept], values[kept]


def score_detector(network: DetectorNetwork, album: Album, hw: tuple[int, int], device: torch.device) -> float:
    """AP at IoU 0.5 on an album; nothing counts in ignored boxes."""
    network.eval()
    detected = []
    for image, rows in (album[index] for index in range(len(album))):
        boxes, scores = detect(network, image, hw, device)
        wanted = rows[:, 4] > 0
        detected.append(DetectedImage(boxes, scores, rows[wanted, :4], areas=rows[~wanted, :4]))
    return average_precision(detected)


IMAGES = 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What only detection recipes take."""
    group = parser.add_argument_group("detection", "recipe person-lite0; --data is a folder of photographs of people")
    group.add_argument(
        "--looks",
        type=Path,
        metavar="JSON",
        help="what teachers see in the unlabelled photographs (python -m qanet.runtime.detectors.looks)",
    )
    group.add_argument(
        "--more", type=Path, action="append", default=[], metavar="DIR", help="another such folder; may be given again"
    )
    group.add_argument("--images", type=int, default=IMAGES, metavar="N", help=f"drawn an epoch ({IMAGES})")


def open_run(
    recipe: Recipe, args: argparse.Namespace, folder: Path, device: "torch.device", world: "World"
) -> "DetectorTrainer":
    """The trainer, after its photographs were read and taught.

    Raises:
        QanetError: a folder is missing, empty or broken; unlabelled photographs without looks.
    """
    from qanet.train.detection.data import DetectionData
    from qanet.train.detection.photographs import UNLABELLED, Album, read_photographs
    from qanet.train.detection.teachers import taught
    from qanet.train.detection.trainer import DetectorTrainer

    photographs = [p for root in (Path(args.data), *args.more) for p in read_photographs(root)]
    if args.looks is not None:
        photographs = taught(photographs, args.looks)
    elif any(p.kind == UNLABELLED for p in photographs):
        raise QanetError(
            f"{args.data} has photographs without labels",
            expected="--looks of teachers at them",
            got="none",
            next_command="see docs/training.md, The person detector",
        )
    val = Album([p for p in photographs if p.held_back])
    data = DetectionData([p for p in photographs if not p.held_back], args.images)
    return DetectorTrainer(recipe, data, val, folder, device, args.workers, args.initial_weights, world)
