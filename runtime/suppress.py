"""Two detections of one person: drop the one of lower quality when their parsings agree.

Source: method, Metrics (parsing NMS: drop when the mean IoU of the classes is 0.6 or more).
"""

import numpy as np
from numpy.typing import NDArray

from qanet.results import PersonParsing

MIN_QUALITY = 0.01
MEAN_IOU_THRESHOLD = 0.6


def parsing_nms(
    people: list[PersonParsing], num_classes: int, threshold: float = MEAN_IOU_THRESHOLD
) -> list[PersonParsing]:
    """People of quality MIN_QUALITY or more, best first, without the duplicates."""
    kept: list[PersonParsing] = []
    for person in sorted(people, key=lambda p: -p.quality):
        if person.quality >= MIN_QUALITY and all(mean_iou(person, k, num_classes) < threshold for k in kept):
            kept.append(person)
    return kept


def mean_iou(a: PersonParsing, b: PersonParsing, num_classes: int) -> float:
    """Mean IoU over the foreground classes present in either, over the union of the regions; 0 when none is."""
    x0, y0 = max(a.roi[0], b.roi[0]), max(a.roi[1], b.roi[1])
    x1, y1 = min(a.roi[2], b.roi[2]), min(a.roi[3], b.roi[3])
    if x1 <= x0 or y1 <= y0:
        return 0.0
    shared_a = _window(a, x0, y0, x1, y1)
    shared_b = _window(b, x0, y0, x1, y1)
    both = np.bincount(shared_a[shared_a == shared_b].ravel(), minlength=num_classes)[1:]
    total_a = np.bincount(a.labels.ravel(), minlength=num_classes)[1:]
    total_b = np.bincount(b.labels.ravel(), minlength=num_classes)[1:]
    union = total_a + total_b - both
    present = union > 0
    return float((both[present] / union[present]).mean()) if present.any() else 0.0


def _window(person: PersonParsing, x0: int, y0: int, x1: int, y1: int) -> NDArray[np.uint8]:
    left, top = person.roi[:2]
    return person.labels[y0 - top : y1 - top, x0 - left : x1 - left]
