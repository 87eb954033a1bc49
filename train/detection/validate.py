"""How well the detector finds what validation images show, while it trains: recall at a rate of false boxes."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from qanet.boxes import suppress
from qanet.letterbox import letterboxed
from qanet.metrics.detection import DetectedImage, Recall, recall_at_false_rate
from qanet.train.detection.frames import LabelledImages
from qanet.train.networks.detector import DetectorNetwork, scores_of

FALSE_PER_IMAGE = 0.1
LEAST_SCORE, LEAST_HEIGHT_PX = 0.5, 60.0  # of the teacher's boxes that are to be found
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


def score_detector(
    network: DetectorNetwork, folders: Sequence[LabelledImages], hw: tuple[int, int], device: torch.device
) -> tuple[Recall, ...]:
    """Recall on each set of labelled images; boxes that need not be found are neutral."""
    network.eval()
    return tuple(_score(network, images, hw, device) for images in folders)


def _score(network: DetectorNetwork, images: LabelledImages, hw: tuple[int, int], device: torch.device) -> Recall:
    detected = []
    for index in range(len(images)):
        boxes, scores = detect(network, images.image(index), hw, device)
        rows = images.boxes[index]
        wanted = (rows[:, 4] > LEAST_SCORE) & (rows[:, 3] - rows[:, 1] >= LEAST_HEIGHT_PX)
        detected.append(DetectedImage(boxes, scores, rows[wanted, :4], rows[~wanted, :4]))
    return recall_at_false_rate(detected, FALSE_PER_IMAGE)
