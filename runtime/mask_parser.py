"""Instance masks of people with QAM, as COCO results.

Each person's box is grown and cropped as for parsing; the mask and its pixel score are computed at image resolution
(`qanet.quality.mask_score`) and fused with the box score and the predicted mask IoU.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.bundle import Bundle
from qanet.coco.annotations import Document, file_name, usable_people
from qanet.coco.results import Result
from qanet.datasets.annotations import read_detections
from qanet.datasets.decoding import decode_photo, require_size
from qanet.errors import QanetError
from qanet.geometry import check_boxes, crop_boxes
from qanet.labels import PERSON1
from qanet.quality import clamp_iou, fuse_quality, mask_score
from qanet.rle import encode
from qanet.runtime.backends.base import Engine
from qanet.runtime.kernels import choose_kernels

MAX_BATCH = 16


@dataclass(frozen=True)
class PersonMask:
    """A mask of one person on the whole image, with scores in [0, 1]."""

    box: NDArray[np.float32]  # (4,) float32 xyxy pixels, as given
    mask: NDArray[np.uint8]  # (H, W) of 0 and 1
    box_score: float
    iou_score: float
    pixel_score: float
    quality: float


class MaskParser:
    """Computes masks of the people of an image. Threads may share it."""

    def __init__(self, bundle: Bundle, engine: Engine, flip: bool = False):
        """
        Args:
            bundle: of the mask task.
            engine: with `logits` and `iou_scores`.
            flip: average with the mirrored crops; doubles the time of the network.
        Raises:
            QanetError: a bundle of another task.
        """
        if bundle.labels.name != PERSON1.name:
            raise QanetError(
                f"{bundle.name} parses people and gives no instance masks",
                expected=f"labels {PERSON1.name}",
                got=bundle.labels.name,
                next_command="qanet parse, or qanet export a checkpoint of person-mask-lite0",
            )
        self.bundle, self.engine, self.flip = bundle, engine, flip

    def __call__(
        self, image: NDArray[np.uint8], boxes: NDArray[np.float32], box_scores: NDArray[np.float32] | None = None
    ) -> list[PersonMask]:
        """The masks of the people in given boxes, in their order.

        Args:
            image: (H, W, 3) uint8 BGR.
            boxes: (N, 4) xyxy pixels.
            box_scores: (N,) in [0, 1]; None means 1, as for ground truth.
        """
        where = check_boxes(boxes, image.shape[:2])
        scores = np.ones(len(where), np.float32) if box_scores is None else np.asarray(box_scores, np.float32)
        if scores.shape != (len(where),) or not ((scores >= 0) & (scores <= 1)).all():
            raise QanetError("box_scores do not fit", expected=f"({len(where)},) in [0, 1]", got=scores.tolist())
        people: list[PersonMask] = []
        for start in range(0, len(where), MAX_BATCH):
            batch = slice(start, start + MAX_BATCH)
            people += self._batch(image, where[batch], scores[batch])
        return people

    def _batch(
        self, image: NDArray[np.uint8], boxes: NDArray[np.float32], box_scores: NDArray[np.float32]
    ) -> list[PersonMask]:
        grown = crop_boxes(boxes, self.bundle.input_hw)
        crops = choose_kernels().crop_people(image, grown, self.bundle.input_hw)
        plain = self.engine.run(crops, box_scores)
        iou, mirrored = clamp_iou(plain["iou_scores"]), None
        if self.flip:
            flipped = self.engine.run(np.ascontiguousarray(crops[:, :, ::-1]), box_scores)
            mirrored = np.asarray(flipped["logits"], np.float32)
            iou = (iou + clamp_iou(flipped["iou_scores"])) / np.float32(2)
        logits = np.asarray(plain["logits"], np.float32)
        scored = mask_score(logits, grown, image.shape[:2], self.bundle.threshold, mirrored)
        quality = fuse_quality(box_scores, iou, scored.pixel_scores, self.bundle.qam_weights)
        return [
            PersonMask(
                boxes[i],
                scored.full(i),
                float(box_scores[i]),
                float(iou[i]),
                float(scored.pixel_scores[i]),
                float(quality[i]),
            )
            for i in range(len(boxes))
        ]


def result_of(person: PersonMask, image_id: Any, category: int) -> Result:
    """A person as a COCO result: the score is Q; its three factors are included for `qanet rescore`."""
    x0, y0, x1, y1 = (float(v) for v in person.box)
    return {
        "image_id": image_id,
        "category_id": category,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "segmentation": encode(person.mask),
        "score": person.quality,
        "box_score": person.box_score,
        "iou_score": person.iou_score,
        "pixel_score": person.pixel_score,
    }


Boxes = tuple[NDArray[np.float32], NDArray[np.float32]]  # (N, 4) xyxy and (N,) scores


def mask_images(
    parser: MaskParser, images: Iterable[Document], folder: Path, boxes: dict[Any, Boxes], category: int
) -> Iterator[Result]:
    """COCO results of every image that has boxes; images are decoded one at a time."""
    for image in images:
        if image["id"] not in boxes:
            continue
        hw = (image["height"], image["width"])
        pixels = decode_photo(folder / file_name(image), hw)
        require_size(f"{folder / file_name(image)} and its annotation", hw, pixels.shape[:2])
        for person in parser(pixels, *boxes[image["id"]]):
            yield result_of(person, image["id"], category)


def annotated_boxes(document: Document, category: int) -> dict[Any, Boxes]:
    """Ground-truth boxes by image, each with a score of 1."""
    found: dict[Any, list[list[float]]] = {}
    for entry in usable_people(document, category):
        x, y, width, height = entry["bbox"]
        found.setdefault(entry["image_id"], []).append([x, y, x + width, y + height])
    return {key: (np.array(rows, np.float32), np.ones(len(rows), np.float32)) for key, rows in found.items()}


def detected_boxes(path: Path, document: Document) -> dict[Any, Boxes]:
    """Boxes of a detector by image, clipped to it; boxes with less than a pixel inside are dropped."""
    images = {str(image["id"]): image for image in document["images"]}
    found: dict[Any, Boxes] = {}
    for key, rows in read_detections(path, [image["id"] for image in document["images"]]).by_image.items():
        width, height = images[key]["width"], images[key]["height"]
        boxes = np.clip(rows[:, :4], 0, np.array([width, height, width, height], np.float32))
        inside = (boxes[:, 2:] - boxes[:, :2] >= 1).all(1)
        if inside.any():
            found[images[key]["id"]] = (boxes[inside], np.clip(rows[inside, 4], 0, 1))
    return found
