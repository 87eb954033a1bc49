"""After the network: people from its scores, crop-sized label maps pasted into the image, and parsing NMS.

Of two detections of one person the one of lower quality is dropped if their parsings agree. Source: method, Metrics
(parsing NMS: drop if the mean IoU of the classes is 0.6 or more). Dropping a person without labelled pixels is this
project's addition: the parsing network is a second opinion on a false box of the detector.
"""

import numpy as np
from numpy.typing import NDArray

from qanet.geometry import box_to_image
from qanet.quality import PixelScores, clamp_iou, fuse_quality
from qanet.quality.quality_map import QualityMap
from qanet.results import Person
from qanet.runtime.backends.base import Outputs
from qanet.runtime.detectors.base import Detections

MIN_QUALITY = 0.01
MEAN_IOU_THRESHOLD = 0.6
MIN_LABELLED_SHARE = 0.01  # of the region: fewer labelled pixels are noise
_EXACT_PX = 2**24  # OpenCV counts in float32


def people_of_scores(
    found: Detections, scored: PixelScores, iou_scores: NDArray, qam_weights: tuple[float, float, float]
) -> list[Person]:
    """The people of a kernel tail: pixel scores fused with the detector's and the network's.

    Args:
        iou_scores: (N,) of the network.
        qam_weights: exponents of box score, predicted IoU and pixel score.
    """
    iou, box = clamp_iou(iou_scores), np.clip(found.scores, 0, 1)
    quality = fuse_quality(box, iou, scored.pixel_scores, qam_weights)
    part_quality = fuse_quality(box[:, None], iou[:, None], scored.part_scores, qam_weights)
    return [
        Person(
            found.boxes[i],
            float(found.scores[i]),
            float(iou[i]),
            float(scored.pixel_scores[i]),
            float(quality[i]),
            scored.part_scores[i],
            part_quality[i],
            scored.labels[i],
            tuple(scored.rois[i].tolist()),
        )
        for i in range(len(found))
    ]


def people_of_graph(
    outputs: Outputs, found: Detections, grown: NDArray[np.float32], image_hw: tuple[int, int]
) -> list[Person]:
    """The people of a graph tail, whose labels are pasted into the image by the nearest pixel.

    Args:
        outputs: of a graph with the whole QAM inside.
        grown: (N, 4) crop boxes in pixels of the image.
        image_hw: (H, W) pixels.
    """
    people = []
    for i, box in enumerate(grown):
        labels, roi = paste_labels(outputs["labels"][i], box, image_hw)
        iou, pixel, quality = (float(outputs[name][i]) for name in ("iou_scores", "pixel_scores", "quality"))
        parts = outputs["part_scores"][i], outputs["part_quality"][i]
        people.append(Person(found.boxes[i], float(found.scores[i]), iou, pixel, quality, *parts, labels, roi))
    return people


def expect(people: list[Person], quality_map: QualityMap) -> None:
    """Give people the IoUs that persons of their scores can be expected to have."""
    if not people:
        return
    box, iou, pixel = np.array([(p.box_score, p.iou_score, p.pixel_score) for p in people], np.float32).clip(0, 1).T
    mious = quality_map.expected_miou(box, iou, pixel)
    parts = quality_map.expected_part_iou(box, iou, np.array([p.part_scores for p in people]))
    for person, miou, part_ious in zip(people, mious, parts):
        person.expected_miou, person.expected_part_iou = float(miou), part_ious


def parsing_nms(
    people: list[Person],
    num_classes: int,
    threshold: float = MEAN_IOU_THRESHOLD,
    least_share: float = MIN_LABELLED_SHARE,
) -> list[Person]:
    """People of quality MIN_QUALITY or more with labelled pixels, best first, without duplicates."""
    kept: list[tuple[Person, NDArray[np.int64]]] = []
    for person in sorted(people, key=lambda p: -p.quality):
        if not person.quality >= MIN_QUALITY:  # nor NaN
            continue
        total = _counts(person.labels, num_classes)
        if total.sum() < max(1, least_share * person.labels.size):
            continue
        if not any(_agree(person, total, other, theirs, threshold) for other, theirs in kept):
            kept.append((person, total))
    return [person for person, _ in kept]


def mean_iou(a: Person, b: Person, num_classes: int) -> float:
    """Mean IoU over the foreground classes present in either, over the union of the regions; 0 when none is."""
    return _mean_iou(a, _counts(a.labels, num_classes), b, _counts(b.labels, num_classes))


def _agree(a: Person, total_a: NDArray[np.int64], b: Person, total_b: NDArray[np.int64], threshold: float) -> bool:
    """Whether the mean IoU is at least the threshold; pixels are compared only if the counts cannot decide."""
    x0, y0, x1, y1 = _overlap(a, b)
    if x1 <= x0 or y1 <= y0:
        return threshold <= 0.0
    most = np.minimum(np.minimum(total_a, total_b), (x1 - x0) * (y1 - y0))
    if _mean(most, total_a + total_b - most) < threshold:
        return False
    return _mean_iou(a, total_a, b, total_b) >= threshold


def _mean_iou(a: Person, total_a: NDArray[np.int64], b: Person, total_b: NDArray[np.int64]) -> float:
    x0, y0, x1, y1 = _overlap(a, b)
    if x1 <= x0 or y1 <= y0:
        return 0.0
    shared_a = _window(a, x0, y0, x1, y1)
    shared_b = _window(b, x0, y0, x1, y1)
    both = _counts(shared_a, len(total_a) + 1, shared_a == shared_b)
    return _mean(both, total_a + total_b - both)


def _mean(both: NDArray[np.int64], union: NDArray[np.int64]) -> float:
    present = union > 0
    return float((both[present] / union[present]).mean()) if present.any() else 0.0


def _overlap(a: Person, b: Person) -> tuple[int, int, int, int]:
    """xyxy of the intersection of the regions."""
    x0, y0 = max(a.roi[0], b.roi[0]), max(a.roi[1], b.roi[1])
    return x0, y0, min(a.roi[2], b.roi[2]), min(a.roi[3], b.roi[3])


def _counts(labels: NDArray[np.uint8], num_classes: int, where: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
    """(C - 1,) int64 pixels of each foreground class, only where `where` is True if given."""
    import cv2

    if labels.size >= _EXACT_PX:
        chosen = labels.ravel() if where is None else labels[where]
        return np.bincount(chosen, minlength=num_classes)[1:]
    mask = None if where is None else where.view(np.uint8)
    counts = cv2.calcHist([labels], [0], mask, [num_classes], [0, num_classes])
    return np.ravel(counts)[1:].astype(np.int64)  # OpenCV 4 gives a column, OpenCV 5 a row


def _window(person: Person, x0: int, y0: int, x1: int, y1: int) -> NDArray[np.uint8]:
    left, top = person.roi[:2]
    return person.labels[y0 - top : y1 - top, x0 - left : x1 - left]


def paste_labels(
    labels: NDArray[np.uint8], box: NDArray[np.float32], image_hw: tuple[int, int]
) -> tuple[NDArray[np.uint8], tuple[int, int, int, int]]:
    """Paste a label map of a crop into the image: the nearest crop pixel for every image pixel inside the box.

    Args:
        labels: (h, w) uint8 class ids of the crop.
        box: (4,) xyxy pixels of the grown box.
        image_hw: (H, W) pixels.
    Returns:
        The labels at image resolution, and their region, xyxy.
    """
    affine = box_to_image(box, labels.shape)  # crop -> image
    steps, origin = np.diag(affine[:, :2]), affine[:, 2]
    limit = np.array([image_hw[1], image_hw[0]])
    low = np.clip(np.ceil(origin - 0.5), 0, limit).astype(int)
    high = np.clip(np.ceil(box[2:] - 0.5), low, limit).astype(int)
    columns, rows = (
        np.clip(((np.arange(low[k], high[k]) + 0.5 - origin[k]) / steps[k]).astype(int), 0, labels.shape[1 - k] - 1)
        for k in (0, 1)
    )
    return labels[rows[:, None], columns[None]], (int(low[0]), int(low[1]), int(high[0]), int(high[1]))
