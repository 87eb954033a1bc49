"""Training of the person detector: the project's loop with the detector's batches, losses and validation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qanet.errors import QanetError
from qanet.geometry import letterboxed, suppress
from qanet.metrics.detection import DetectedImage, average_precision
from qanet.train.data.loader import Batch, Loader
from qanet.train.detection.data import DetectionData, DetectionLoader
from qanet.train.detection.losses import detection_losses
from qanet.train.detection.photographs import UNLABELLED, Album, read_photographs
from qanet.train.detection.teachers import taught
from qanet.train.distributed import World
from qanet.train.networks.detector import DetectorNetwork, cells_of, scores_of
from qanet.train.recipes import Recipe
from qanet.train.trainer import Trainer
from qanet.train.weights import save_weights

VALIDATED_EVERY = 3  # epochs
_NMS_IOU = 0.5
_MOST_CANDIDATES = 300  # boxes before suppression


def open_photographs(folders: Sequence[Path], looks: Path | None, images: int) -> tuple[DetectionData, Album]:
    """The training data, and the photographs held back for validation.

    Args:
        folders: of photographs of people, laid out as `photographs` says.
        looks: detections of teachers in the unlabelled photographs.
        images: training images per epoch.
    Raises:
        QanetError: a folder is missing, empty or broken; unlabelled photographs without looks.
    """
    photographs = [photograph for folder in folders for photograph in read_photographs(folder)]
    if looks is not None:
        photographs = taught(photographs, looks)
    elif any(p.kind == UNLABELLED for p in photographs):
        raise QanetError(
            f"{folders[0]} has photographs without labels",
            expected="--looks: a file of detections by teachers",
            got="none",
            next_command="see docs/training.md, The person detector",
        )
    data = DetectionData([p for p in photographs if not p.held_back], images)
    return data, Album([p for p in photographs if p.held_back])


class DetectorTrainer(Trainer):
    """A run as `Trainer` makes it: resumable, with averaged weights and `model.safetensors` at the end.

    It also keeps the averaged weights of every epoch, `epochs/NNN.safetensors`, to choose the best by validation.

    Args:
        data: draws training images.
        val: photographs held back: AP at IoU 0.5 after every VALIDATED_EVERY epochs and after the last.
    """

    log_fields = ("epoch", "loss", "score", "box", "iou", "learning_rate", "val_ap50", "seconds", "data_wait_share")

    def __init__(
        self,
        recipe: Recipe,
        data: DetectionData,
        val: Album,
        folder: Path,
        device: torch.device,
        *,
        workers: int = 2,
        initial_weights: Path | None = None,
        world: World | None = None,
    ):
        super().__init__(
            recipe,
            data,  # type: ignore[arg-type]  # goes to _open_loader alone
            None,
            folder,
            device,
            workers=workers,
            initial_weights=initial_weights,
            world=world,
        )
        self.val_data: Any = val if len(val) else None

    def _open_loader(self, data: Any, workers: int) -> Loader:
        return DetectionLoader(data, self.recipe, workers, self.world)

    def _losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        images, truths = (part.to(self.device, non_blocking=True) for part in (batch.crops, batch.labels))
        with self.precision.autocast():
            raw = self.parallel(self.model.normalise(images).contiguous(memory_format=torch.channels_last))
        return detection_losses(raw, truths, *cells_of(images.shape[1:3], self.device))

    def _validate(self) -> dict[str, float]:
        if self.epoch % VALIDATED_EVERY and self.epoch < self.recipe.epochs:
            return {}
        network: Any = self.ema.model
        return {"val_ap50": score_detector(network, self.val_data, self.recipe.input_hw, self.device)}

    def _keep_epoch(self, scores: dict[str, float]) -> None:
        save_weights(self.folder / "epochs" / f"{self.epoch:03d}.safetensors", self.ema.model, self.recipe)


def score_detector(network: DetectorNetwork, album: Album, hw: tuple[int, int], device: torch.device) -> float:
    """AP at IoU 0.5 in 0..1 on photographs; detections in ignored boxes do not count."""
    network.eval()
    detected = []
    for image, rows in (album[index] for index in range(len(album))):
        boxes, scores = detect(network, image, hw, device)
        wanted = rows[:, 4] > 0
        detected.append(DetectedImage(boxes, scores, rows[wanted, :4], areas=rows[~wanted, :4]))
    return average_precision(detected)


@torch.inference_mode()
def detect(
    network: DetectorNetwork, image: NDArray[np.uint8], hw: tuple[int, int], device: torch.device
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Boxes (N, 4) xyxy in image pixels and scores (N,) in 0..1, after suppression, the best first."""
    canvas, ratio = letterboxed(image, hw)
    batch = network.normalise(torch.from_numpy(canvas)[None].to(device)).contiguous(memory_format=torch.channels_last)
    with torch.autocast(device.type, torch.bfloat16):
        raw = network(batch)
    scores, order = scores_of(raw)[0].float().sort(descending=True)
    best = order[:_MOST_CANDIDATES]
    boxes = (raw.boxes[0, best] / ratio).cpu().numpy().astype(np.float32)
    values = scores[:_MOST_CANDIDATES].cpu().numpy()
    boxes = np.clip(boxes, 0, np.array([image.shape[1], image.shape[0]] * 2, np.float32))
    kept = suppress(boxes, values, _NMS_IOU)
    return boxes[kept], values[kept]
