"""A network that can tell left from right: per 4x4 cell, a fixed mix of its colours and of its place in the crop."""

import numpy as np

CLASSES, CROP_HW = 20, (64, 48)


def weights():
    """(3 + 2, C): how much of mean blue, green, red, column and row, all about zero, each class takes."""
    mix = np.random.default_rng(11).normal(0, 3, (5, CLASSES)).astype(np.float32)
    mix[3, 14:] *= 3  # the classes that have a left and a right depend on the column
    return mix


class FlipEngine:
    """The network as an engine of the runtime; counts its runs.

    Attributes:
        batches: crops of each run.
    """

    runtime, precision, outputs = "toy", "fp32", ("logits", "iou_scores")

    def __init__(self):
        self.batches = []

    def run(self, crops, box_scores):
        """See `Engine.run`: logits (N, 20, 16, 12), and as IoU the left half's mean brightness."""
        assert len(crops) == len(box_scores)
        self.batches.append(len(crops))
        count, height, width = crops.shape[:3]
        cells = crops.reshape(count, height // 4, 4, width // 4, 4, 3).mean((2, 4), dtype=np.float32) / 255
        rows, columns = np.meshgrid(np.linspace(0, 1, height // 4), np.linspace(0, 1, width // 4), indexing="ij")
        place = np.broadcast_to(np.stack([columns, rows], 2), (count, height // 4, width // 4, 2))
        logits = (np.concatenate([cells, place.astype(np.float32)], 3) - np.float32(0.5)) @ weights()
        return {
            "logits": np.ascontiguousarray(logits.transpose(0, 3, 1, 2)),
            "iou_scores": crops[:, :, : width // 2].mean((1, 2, 3), dtype=np.float32) / 255,
        }


def scene(seed=0, hw=(150, 200)):
    """(H, W, 3) uint8 BGR of smooth colours, and three boxes; one reaches outside."""
    import cv2

    image = np.random.default_rng(seed).integers(0, 256, (*(side // 10 for side in hw), 3), np.uint8)
    boxes = np.array([[20, 12, 70, 122], [90, 40, 150, 140], [150, -10, 214, 90]], np.float32)
    return cv2.resize(image, (hw[1], hw[0]), interpolation=cv2.INTER_CUBIC), boxes
