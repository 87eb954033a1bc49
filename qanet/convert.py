"""People as other libraries take them: COCO results, supervision.Detections, pandas.DataFrame.

`people` is a `qanet.results.People`, which imports this file and is not imported here.
"""

import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet import rle
from qanet.errors import QanetError


def coco_entries(people: Any, image_id: int, parts: bool) -> list[dict[str, Any]]:
    """See `People.to_coco`."""
    entries = []
    for number, person in enumerate(people):
        if parts:
            found = rle.encode_labels(person.labels, person.roi[:2], people.image_size)
            for class_id, (_, mask) in found.items():
                box = _box_of(people.mask(class_id, number))
                entries.append(_entry(image_id, class_id, box, person.part_quality[class_id - 1], mask))
        else:
            x0, y0, x1, y1 = (float(v) for v in person.box)
            mask = rle.encode(people.mask(None, number))
            entries.append(_entry(image_id, 1, [x0, y0, x1 - x0, y1 - y0], person.quality, mask))
    return entries


def _entry(image_id: int, category_id: int, box: list[float], score: float, mask: dict[str, Any]) -> dict[str, Any]:
    return {
        "image_id": image_id,
        "category_id": category_id,
        "bbox": [round(v, 2) for v in box],
        "score": round(float(score), 4),
        "segmentation": mask,
    }


def _box_of(mask: NDArray[np.bool_]) -> list[float]:
    """xywh of the pixels."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [float(columns[0]), float(rows[0]), float(np.ptp(columns)) + 1, float(np.ptp(rows)) + 1]


def supervision_detections(people: Any) -> Any:
    """See `People.to_supervision`."""
    supervision = _optional("supervision")
    tracked = any(p.track_id is not None for p in people)
    masks = np.array([people.mask(None, i) for i in range(len(people))], bool).reshape(-1, *people.image_size)
    return supervision.Detections(
        xyxy=people.boxes,
        mask=masks,
        confidence=people.quality,
        class_id=np.zeros(len(people), int),
        tracker_id=people.track_ids if tracked else None,
        data={
            "box_score": people.scores,
            "iou_score": people.iou,
            "pixel_score": people.pixel,
            "expected_miou": people.expected_miou,
        },
    )


def dataframe(people: Any) -> Any:
    """See `People.to_dataframe`."""
    pandas = _optional("pandas")
    columns: dict[str, Any] = dict(zip(("x0", "y0", "x1", "y1"), people.boxes.T))
    columns |= {"box_score": people.scores, "iou_score": people.iou, "pixel_score": people.pixel}
    columns |= {"quality": people.quality, "expected_miou": people.expected_miou, "track_id": people.track_ids}
    names = people.label_set.classes[1:]
    columns |= {f"quality {name}": values for name, values in zip(names, people.part_quality.T)}
    return pandas.DataFrame(columns)


def _optional(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise QanetError(f"{module} is not installed", next_command=f"pip install {module}") from error
