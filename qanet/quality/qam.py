"""QAM: box, IoU and pixel score fused into the quality of a person or of a part. Source: method, section QAM."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qanet.errors import QanetError

QAM_WEIGHTS = (1.0, 0.5, 3.0)  # exponents of box, IoU and pixel score of every published QANet configuration


def fuse_quality(
    box_scores: ArrayLike,
    iou_scores: ArrayLike,
    pixel_scores: ArrayLike,
    weights: tuple[float, float, float] = QAM_WEIGHTS,
) -> NDArray[np.float32]:
    """Q = (box^a * iou^b * pixel^g)^(1 / (a + b + g)), broadcast over the arguments' shapes; float32.

    Nothing is clamped: a negative base under a fractional exponent is nan, and x^0 is 1 for every x, as in the
    official code. Clamp an IoU head's raw output with `clamp_iou` first.

    Raises:
        QanetError: weights without a positive sum.

    >>> round(float(fuse_quality(0.9, 0.8, 0.7)), 3)
    0.751
    >>> fuse_quality([0.9, 0.5], [0.8, 0.8], [[0.7], [0.6]], weights=(1, 1, 1)).shape
    (2, 2)
    """
    if len(weights) != 3 or not sum(weights) > 0:
        raise QanetError("bad QAM weights", expected="three numbers with a positive sum", got=weights)
    scores = (box_scores, iou_scores, pixel_scores)
    with np.errstate(invalid="ignore"):
        box, iou, pixel = (np.asarray(s, np.float32) ** np.float32(w) for s, w in zip(scores, weights))
        return np.asarray((box * iou * pixel) ** np.float32(1 / sum(weights)), np.float32)


def clamp_iou(iou_scores: ArrayLike) -> NDArray[np.float32]:
    """The IoU head's unbounded output clipped to [0, 1]; nan becomes 0. Any shape, float32.

    >>> clamp_iou([-0.1, 0.5, 1.2]).tolist()
    [0.0, 0.5, 1.0]
    """
    return np.clip(np.nan_to_num(np.asarray(iou_scores, np.float32), nan=0.0), 0.0, 1.0)
