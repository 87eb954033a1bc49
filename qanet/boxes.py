"""Arithmetic of boxes: overlap and greedy non-maximum suppression."""

import numpy as np
from numpy.typing import NDArray


def pairwise_iou(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """IoU of every box of a (N, 4) with every box of b (M, 4), xyxy; (N, M) float32."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    overlap = np.clip(high - low, 0, None).prod(2)
    area_a, area_b = ((x[:, 2:] - x[:, :2]).prod(1) for x in (a, b))
    union = area_a[:, None] + area_b[None] - overlap
    return (overlap / np.maximum(union, 1e-9)).astype(np.float32)


def suppress(boxes: NDArray[np.float32], scores: NDArray[np.float32], iou_threshold: float) -> NDArray[np.intp]:
    """Greedy NMS: indices kept, best score first."""
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    overlaps = pairwise_iou(boxes, boxes)
    for index in order:
        if not kept or overlaps[index, kept].max() <= iou_threshold:
            kept.append(int(index))
    return np.array(kept, np.intp)
