"""Labels from larger detectors, the teachers, for photographs without labels.

The detections come from a file, written by `python -m qanet.benchmarks.lab.detector_looks`.

A look is one detector on the photograph or on its mirror image: YOLOX on both, NanoDet on the photograph. Boxes of one
person are fused, weighted by their scores (arXiv 1910.13302). A box on which two looks agree becomes a label. Other
detections become ignored areas: a student of a single teacher learns its mistakes.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qanet.errors import QanetError
from qanet.geometry import pairwise_iou
from qanet.train.detection.photographs import IGNORED, LABELLED, UNLABELLED, Photograph, Rows

DOUBTED_SCORE = 0.1  # mean score over all looks from which a box without agreement is ignored
AGREED_SCORE = 0.35  # least score of a look that counts as agreeing
_ALIKE_IOU, _SAME_IOU = 0.55, 0.5  # least IoU of two looks at one person; of a look and a label
_SMALL_PX = 32.0  # height of people below which labels are mostly missing
_KNOWN_IOU = 0.4  # IoU from which a teacher's box is the labelled person
_NEXT = "python -m qanet.benchmarks.lab.detector_looks PEOPLE --detector ONNX --detector ONNX --output looks.json"

Seen = NDArray[np.float32]  # (N, 6): x0 y0 x1 y1 score, number of the look


def fuse(seen: Seen, looks: int) -> Rows:
    """Rows (M, 5): people on whom two looks agree, with their mean score, and other detections as IGNORED.

    Args:
        seen: rows x0 y0 x1 y1 score, and the number of the look.
        looks: number of looks.
    """
    boxes, scores, owner = seen[:, :4], seen[:, 4], seen[:, 5]
    free = np.ones(len(boxes), bool)
    overlaps = pairwise_iou(boxes, boxes)
    rows = []
    for index in np.argsort(-scores, kind="stable"):
        if not free[index]:
            continue
        alike = [int(index)]
        for number in range(looks):
            same = np.flatnonzero(free & (owner == number) & (overlaps[index] >= _ALIKE_IOU))
            if number != owner[index] and len(same):
                alike.append(int(same[np.argmax(overlaps[index, same])]))
        free[alike] = False
        box = (boxes[alike] * scores[alike, None]).sum(0) / scores[alike].sum()
        agreed = np.count_nonzero(scores[alike] >= AGREED_SCORE) >= 2
        mean = scores[alike].sum() / looks
        if agreed or mean >= DOUBTED_SCORE:
            rows.append([*box, mean if agreed else IGNORED])
    return np.array(rows, np.float32).reshape(-1, 5)


def halfway(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Target scores from scores of teachers: halfway to 1, the score of a true box.

    With a target of 1 for every person, however hidden, the network becomes too sure of things that look like people.
    """
    return np.asarray((1 + np.clip(scores, 0, 1)) / 2, np.float32)


def with_doubts(rows: Rows, seen: Rows) -> Rows:
    """Labels (M, 5) with scores lowered by `halfway` to what the teachers (N, 5) give them.

    Detections that the labels may have missed are added as IGNORED: those on which teachers agree, and small ones.
    """
    overlaps = pairwise_iou(rows[:, :4], seen[:, :4])
    sure = np.where(overlaps >= _SAME_IOU, np.maximum(seen[:, 4], 0), np.float32(0)).max(1, initial=0)
    rows = rows.copy()
    rows[:, 4] = np.where(rows[:, 4] > 0, rows[:, 4] * halfway(sure), rows[:, 4])
    likely = (seen[:, 4] > 0) | (seen[:, 3] - seen[:, 1] < _SMALL_PX)
    beside = seen[likely & (overlaps.max(0, initial=0) < _KNOWN_IOU)]
    beside[:, 4] = IGNORED
    return np.concatenate([rows, beside])


def taught(photographs: Sequence[Photograph], file: Path) -> list[Photograph]:
    """The photographs: unlabelled ones with the labels of `fuse`, labelled ones with the scores of `with_doubts`.

    Raises:
        QanetError: not a file of looks, or a file without one of the unlabelled photographs.
    """
    try:
        document = json.loads(file.read_text())
        seen = {str(name): np.array(rows, np.float32).reshape(-1, 6) for name, rows in document["seen"].items()}
        looks = int(document["looks"])
    except OSError as error:
        raise QanetError(f"no looks at {file}", got=error.strerror, next_command=_NEXT) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise QanetError(f"{file} is not a file of looks", got=error, next_command=_NEXT) from error
    return [_taught(photograph, seen, looks) for photograph in photographs]


def _taught(photograph: Photograph, seen: dict[str, Seen], looks: int) -> Photograph:
    if photograph.kind == UNLABELLED and photograph.name not in seen:
        raise QanetError(f"no looks at {photograph.name}", next_command=_NEXT)
    if photograph.kind not in (LABELLED, UNLABELLED) or photograph.name not in seen:
        return photograph
    rows = fuse(seen[photograph.name], looks)
    if photograph.kind == LABELLED:
        return replace(photograph, rows=with_doubts(photograph.rows, rows))
    rows[:, 4] = np.where(rows[:, 4] > 0, halfway(rows[:, 4]), rows[:, 4])
    return replace(photograph, rows=rows)
