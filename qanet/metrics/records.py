"""What goes into an evaluation: the ground truth of an image, the people predicted in it, and the protocol.

Protocols: `official` reproduces the published code with its quirks, `strict` corrects each of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qanet.errors import QanetError

MAX_PART_ID = 65535  # an Instance_ids PNG has 8 or 16 bits
THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)  # AP^p, PCP, AP^r: IoU strictly above
HUMAN_THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)  # AP^h


@dataclass(frozen=True, eq=False)
class Truth:
    """The ground truth of one image.

    Attributes:
        category: (H, W) uint8 class ids (Category_ids); an id outside [0, C), by habit 255, is void.
        human: (H, W) uint8 person ids (Human_ids); 0 = no person.
        parts: (H, W) integer part ids (Instance_ids), 0 = none; None: one part per class of each person.
        part_table: (L, 3) integers: part id, class, human id (the text file next to Instance_ids).

    >>> category = np.zeros((4, 6), np.uint8)
    >>> category[1:3, 1:3] = 2
    >>> truth = Truth(category, human=(category > 0).astype(np.uint8))
    """

    category: NDArray[np.uint8]
    human: NDArray[np.uint8]
    parts: NDArray[np.integer] | None = None
    part_table: NDArray[np.integer] | None = None


@dataclass(frozen=True, eq=False)
class Prediction:
    """One predicted person.

    Attributes:
        labels: (H, W) uint8 class ids of the whole image, 0 = background; with `roi` only of that window.
        box_score: the detector's score.
        iou_score: the IoU head's output; unbounded.
        pixel_score: instance pixel score.
        part_pixel_scores: (C-1,) pixel scores of the classes 1..C-1.
        roi: x0, y0, x1, y1 in whole pixels of the image; None: `labels` covers the image.

    >>> window = np.full((2, 2), 2, np.uint8)
    >>> person = Prediction(window, 0.9, 0.8, 0.7, part_pixel_scores=np.array([0, 0.7]), roi=(1, 1, 3, 3))
    """

    labels: NDArray[np.uint8]
    box_score: float
    iou_score: float
    pixel_score: float
    part_pixel_scores: NDArray[np.floating]
    roi: Sequence[int] | None = None


def check_truth(truth: Truth, image: int) -> None:
    """Check one image's ground truth.

    Args:
        truth: the ground truth.
        image: number of the image, for the message.
    Raises:
        QanetError: a dtype other than uint8, shapes that differ, parts without their table, a misshapen table.
    """
    where = f"ground truth of image {image}"
    for name in ("category", "human"):
        array = np.asarray(getattr(truth, name))
        if array.dtype != np.uint8:
            raise QanetError(f"{where}: {name} has the wrong dtype", expected="uint8", got=array.dtype)
        if array.ndim != 2:
            raise QanetError(f"{where}: {name} has the wrong shape", expected="(H, W)", got=array.shape)
    shape = truth.category.shape
    if truth.human.shape != shape:
        raise QanetError(f"{where}: category and human differ in shape", expected=shape, got=truth.human.shape)
    if truth.parts is None:
        return
    if truth.parts.shape != shape:
        raise QanetError(f"{where}: category and parts differ in shape", expected=shape, got=truth.parts.shape)
    if not np.issubdtype(truth.parts.dtype, np.integer):
        raise QanetError(f"{where}: parts has the wrong dtype", expected="an integer dtype", got=truth.parts.dtype)
    if truth.parts.size and not 0 <= int(truth.parts.min()) <= int(truth.parts.max()) <= MAX_PART_ID:
        ids = f"{truth.parts.min()}..{truth.parts.max()}"
        raise QanetError(f"{where}: a part id is out of range", expected=f"0..{MAX_PART_ID}", got=ids)
    table = None if truth.part_table is None else np.asarray(truth.part_table)
    if table is None or (table.size and (table.ndim != 2 or table.shape[1] != 3)):
        raise QanetError(
            f"{where}: parts need a part_table",
            expected="(L, 3): part id, class, human id",
            got=None if table is None else table.shape,
            next_command="read the .txt next to the Instance_ids PNG, or leave parts out",
        )


def check_prediction(prediction: Prediction, hw: tuple[int, int], num_classes: int, where: str) -> None:
    """Check one predicted person against the image's size and the number of classes.

    Args:
        prediction: the person.
        hw: (H, W) pixels of the image.
        num_classes: C, background included.
        where: the name of the prediction, for the message.
    Raises:
        QanetError: wrong dtype or shape, a roi outside the image, a label >= C, part scores of the wrong length.
    """
    labels = np.asarray(prediction.labels)
    if labels.dtype != np.uint8:
        raise QanetError(f"{where}: labels have the wrong dtype", expected="uint8", got=labels.dtype)
    expected = tuple(hw)
    if prediction.roi is not None:
        x0, y0, x1, y1 = (int(edge) for edge in prediction.roi)
        if not (0 <= x0 <= x1 <= hw[1] and 0 <= y0 <= y1 <= hw[0]):
            size = f"x0 y0 x1 y1 within {hw[1]}x{hw[0]} pixels"
            raise QanetError(f"{where}: roi leaves the image", expected=size, got=[x0, y0, x1, y1])
        expected = (y1 - y0, x1 - x0)
    if labels.shape != expected:
        raise QanetError(
            f"{where}: labels and ground truth differ in shape",
            expected=expected,
            got=labels.shape,
            next_command="paste the labels to the image's size, or pass the roi that they cover",
        )
    if labels.size and int(labels.max()) >= num_classes:
        raise QanetError(f"{where}: a label is not a class", expected=f"0..{num_classes - 1}", got=int(labels.max()))
    part_shape = np.shape(prediction.part_pixel_scores)
    if part_shape != (num_classes - 1,):
        raise QanetError(
            f"{where}: part_pixel_scores have the wrong length",
            expected=f"({num_classes - 1},), one for each class but the background",
            got=part_shape,
        )


@dataclass(frozen=True)
class Protocol:
    """What an evaluation does where the published code and the definition of a metric differ.

    Everything else (thresholds, strict inequalities, the painting by box score before NMS) is common to all.
    """

    name: str
    shifted_nms: bool  # NMS numbers its candidates without those already dropped, so it drops the wrong ones
    skip_unpredicted: bool  # mIoU, AP^r and AP^h leave out an image without a prediction; AP^p and PCP never do
    reuse_truth: bool  # AP^r, AP^h: one ground truth can make several true positives, so AP can exceed 1
    nan_first: bool  # NaN scores are painted on top and come first in AP^r and AP^h; else below all, and last
    text_order: bool  # AP^h ranks the scores as text ("9.5" above "10.5")
    absent_is_zero: bool  # a class in neither ground truth nor prediction counts 0 in means; else it is nan, skipped
    void_is_error: bool  # AP^r, AP^h: predicted void pixels count against the prediction; else they are left out
    max_regions: int | None  # regions an image can hold (its map has 8 bits); those beyond it are lost


PROTOCOLS: dict[str, Protocol] = {
    "official": Protocol(
        "official",
        shifted_nms=True,
        skip_unpredicted=True,
        reuse_truth=True,
        nan_first=True,
        text_order=True,
        absent_is_zero=True,
        void_is_error=True,
        max_regions=254,
    ),
    "strict": Protocol(
        "strict",
        shifted_nms=False,
        skip_unpredicted=False,
        reuse_truth=False,
        nan_first=False,
        text_order=False,
        absent_is_zero=False,
        void_is_error=False,
        max_regions=None,
    ),
}


def find_protocol(name: str) -> Protocol:
    """The protocol of that name.

    Raises:
        QanetError: an unknown name, with the known ones.

    >>> find_protocol("strict").reuse_truth
    False
    """
    if name not in PROTOCOLS:
        raise QanetError(
            f"unknown evaluation protocol {name!r}",
            expected=" or ".join(PROTOCOLS),
            got=name,
            next_command='pass protocol="official" to compare with published numbers, "strict" to compare models',
        )
    return PROTOCOLS[name]
