"""How well the detector finds the people of photographs held back, while it trains: AP at IoU 0.5."""

import numpy as np
import torch
from numpy.typing import NDArray

from qanet.geometry import letterboxed, suppress
from qanet.metrics.detection import DetectedImage, average_precision
from qanet.train.detection.photographs import Album
from qanet.train.networks.detector import DetectorNetwork, scores_of

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
