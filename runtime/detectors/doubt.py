"""A teacher's doubts about people whose boxes are known: their scores become the mean of what is true and what it says.

    python -m qanet.runtime.detectors.doubt frames/scenes --detector yolox_nano.onnx

A detector that learns from scores of 1 alone is as sure of a shape against the light as of a walker before a wall. The
mean ranks people as the teacher does and denies nobody: one whom it does not see at all has half of the true score.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.boxes import pairwise_iou
from qanet.cli.commandline import CommandParser, emit, run_module
from qanet.errors import QanetError
from qanet.files import write_text
from qanet.images import read_image
from qanet.runtime.detectors.base import Detector

LEAST_SCORE = 0.05  # of a teacher's box
_SAME_IOU = 0.5


def doubt(folder: Path, teacher: Detector, split: str = "train") -> dict[str, Any]:
    """Rewrite the scores of <folder>/<split>.json; the true ones are kept as "true_score", so that twice is as once.

    Boxes of a score below 0 (neither people nor background) stay as they are.

    Raises:
        QanetError: no such file, not a file of labels, or an image that cannot be read.
    """
    path = folder / f"{split}.json"
    try:
        document = json.loads(path.read_text())
        images = {image["id"]: folder / str(image["file_name"]) for image in document["images"]}
        rows: dict[Any, list[dict[str, Any]]] = {key: [] for key in images}
        for entry in document["annotations"]:
            rows[entry["image_id"]].append(entry)
            entry["bbox"] = [float(v) for v in entry["bbox"]]
            entry["true_score"] = float(entry.get("true_score", entry.get("score", 1.0)))
    except OSError as error:
        raise QanetError(f"no {path.name} in {folder}", got=error.strerror) from error
    except (ValueError, KeyError, TypeError) as error:
        raise QanetError(
            f"{path} is not a file of labels", expected="COCO images and annotations", got=error
        ) from error
    seen = total = 0
    for number, (key, entries) in enumerate(rows.items()):
        if not entries:
            continue
        found = teacher.detect(read_image(images[key]), number)
        boxes = np.array([entry["bbox"] for entry in entries], np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        for entry, says in zip(entries, best_scores(boxes, found.boxes, found.scores)):
            if entry["true_score"] >= 0:
                entry["score"] = round((entry["true_score"] + float(says)) / 2, 4)
                seen, total = seen + (says > 0), total + 1
    write_text(path, json.dumps(document))
    return {"file": str(path), "images": len(images), "people": total, "seen_by_teacher": int(seen)}


def best_scores(
    boxes: NDArray[np.float32], found: NDArray[np.float32], scores: NDArray[np.float32]
) -> NDArray[np.float32]:
    """For each of M boxes (M, 4) the best score (N,) of those found on it (N, 4), IoU 0.5 or more; 0 where none is."""
    if len(found) == 0:
        return np.zeros(len(boxes), np.float32)
    return np.where(pairwise_iou(boxes, found) >= _SAME_IOU, scores, np.float32(0)).max(1)


def main(argv: Sequence[str]) -> int:
    """Entry point."""
    parser = CommandParser(prog="python -m qanet.runtime.detectors.doubt", description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, metavar="DIR", help="labelled images; their file is rewritten")
    parser.add_argument("--detector", required=True, metavar="ONNX", help="the teacher")
    parser.add_argument("--split", default="train", choices=("train", "val"))
    parser.add_argument("--threads", type=int, help="CPU threads of the teacher")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    from qanet.runtime.detectors.onnx import OnnxDetector

    done = doubt(args.folder, OnnxDetector(Path(args.detector), LEAST_SCORE, args.threads), args.split)
    emit(
        args.json,
        done,
        f"the teacher sees {done['seen_by_teacher']} of {done['people']} people; {done['file']} rewritten",
    )
    return 0


if __name__ == "__main__":
    run_module(main)
