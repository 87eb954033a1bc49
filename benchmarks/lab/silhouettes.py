"""Silhouettes of boxed people (person, background or unsure per pixel) by MediaPipe's network: labels to train from.

    python -m qanet.benchmarks.lab.silhouettes PEOPLE/labelled/park boxes/portraits --model selfie_segmentation.tflite \
        --output people/silhouettes

Each folder holds COCO boxes (persons.json). The network sees a person's box and MARGIN more on each side; beyond that,
pixels in no box are background. Pixels of a person that lie in several boxes, or outside the person's own, are void.
Runs where ai-edge-litert is installed, which the project does not require.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.commandline import CommandParser, run_module
from qanet.errors import QanetError
from qanet.files import write_bytes
from qanet.images import read_image
from qanet.labels import IGNORE
from qanet.train.data.people import ANY_CLASS, Person, write_index

MARGIN = 0.15  # of the box, on each side, in the network's input
SURE = 0.75  # least probability of a person's pixel; 1 - SURE is the greatest of background
_SLACK = 0.06  # of the box, on each side: boxes are seldom tight
_LEAST_PX = 48  # height of a person worth learning from
_LEAST_SCORE = 0.4  # of a detected box; one of a lower score only makes its pixels void
_LEAST_SHARE, _MOST_SHARE = 0.15, 0.97  # of the box that is the person's; else the network or the box is wrong
_INDEXES = ("persons.json", "train.json")


@dataclass(frozen=True)
class Boxed:
    """A photograph and all boxes in it: boxes (N, 4) float32 xyxy, scores (N,) float32, 0 for crowds."""

    photo: Path
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]


def boxed_photos(folder: Path) -> Iterator[Boxed]:
    """The photographs of a folder that have boxes.

    Raises:
        QanetError: no index of boxes there.
    """
    path = next((folder / name for name in _INDEXES if (folder / name).is_file()), None)
    if path is None:
        raise QanetError(f"no boxes in {folder}", expected=" or ".join(_INDEXES), got="neither")
    document = json.loads(path.read_text())
    found: dict[int, list[dict[str, Any]]] = {}
    for annotation in document["annotations"]:
        found.setdefault(annotation["image_id"], []).append(annotation)
    for image in document["images"]:
        rows = found.get(image["id"], [])
        if not rows:
            continue
        inner = folder / "images" / image["file_name"]
        photo = inner if inner.exists() else folder / image["file_name"]
        boxes = np.array([row["bbox"] for row in rows], np.float32)
        boxes[:, 2:] += boxes[:, :2]
        scores = np.array([0.0 if row.get("iscrowd") else row.get("score", 1.0) for row in rows], np.float32)
        yield Boxed(photo, boxes, scores)


def grown(box: NDArray[np.float32], share: float, hw: tuple[int, ...]) -> tuple[slice, slice]:
    """Rows and columns of a box with `share` of its size more on each side, within the photograph."""
    x0, y0, x1, y1 = (float(v) for v in box)
    dx, dy = share * (x1 - x0), share * (y1 - y0)
    rows = slice(max(0, int(y0 - dy)), min(hw[0], int(np.ceil(y1 + dy))))
    return rows, slice(max(0, int(x0 - dx)), min(hw[1], int(np.ceil(x1 + dx))))


def silhouette_labels(
    boxed: Boxed, index: int, probability: NDArray[np.float32], hw: tuple[int, ...]
) -> NDArray[np.uint8] | None:
    """(H, W) uint8 of 0, SOMEBODY and IGNORE for one person; None where box and silhouette do not fit each other.

    Args:
        probability: (h, w) of the window that `grown(box, MARGIN)` gives.
    """
    box = boxed.boxes[index]
    own = np.zeros(hw, bool)
    own[grown(box, _SLACK, hw)] = True
    others = np.zeros(hw, bool)
    for other, its_box in enumerate(boxed.boxes):
        if other != index:
            others[grown(its_box, _SLACK, hw)] = True
    labels = np.where(others, IGNORE, 0).astype(np.uint8)
    window = grown(box, MARGIN, hw)
    seen = np.full(probability.shape, IGNORE, np.uint8)
    seen[probability <= 1 - SURE] = 0
    seen[(probability >= SURE) & own[window] & ~others[window]] = ANY_CLASS
    labels[window] = seen
    mine = labels[grown(box, 0.0, hw)]
    inside = mine[~others[grown(box, 0.0, hw)]]
    share = (inside == ANY_CLASS).mean() if inside.size else 0.0
    return labels if _LEAST_SHARE <= share <= _MOST_SHARE else None


class Silhouettes:
    """The network: (1, 256, 256, 3) float32 RGB in 0..1 -> (1, 256, 256, 1) probability of a person."""

    def __init__(self, model: Path):
        from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-not-found, import-untyped, unused-ignore]

        self._interpreter = Interpreter(str(model), num_threads=1)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]
        self._output = self._interpreter.get_output_details()[0]["index"]

    def __call__(self, window: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(h, w, 3) uint8 BGR -> (h, w) float32."""
        import cv2

        size = tuple(int(v) for v in self._input["shape"][1:3])
        small = cv2.resize(window, size[::-1], interpolation=cv2.INTER_AREA)[..., ::-1]
        self._interpreter.set_tensor(self._input["index"], small[None].astype(np.float32) / 255)
        self._interpreter.invoke()
        probability = self._interpreter.get_tensor(self._output)[0, ..., 0]
        return np.asarray(cv2.resize(probability, window.shape[1::-1], interpolation=cv2.INTER_LINEAR), np.float32)


def main(argv: Sequence[str]) -> int:
    """Entry point."""
    import cv2

    parser = CommandParser(prog="python -m qanet.benchmarks.lab.silhouettes", description=__doc__.split("\n")[0])
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="photographs with boxes in COCO form")
    parser.add_argument("--model", required=True, type=Path, metavar="FILE.tflite")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR")
    args = parser.parse_args(argv)
    network = Silhouettes(args.model)
    people: list[Person] = []
    unfit = 0
    for folder in args.folders:
        for boxed in boxed_photos(folder.resolve()):
            image = read_image(boxed.photo)
            hw = image.shape[:2]
            for index, (box, score) in enumerate(zip(boxed.boxes, boxed.scores)):
                if score < _LEAST_SCORE or box[3] - box[1] < _LEAST_PX or box[2] - box[0] < _LEAST_PX / 3:
                    continue
                labels = silhouette_labels(boxed, index, network(image[grown(box, MARGIN, hw)]), hw)
                if labels is None:
                    unfit += 1
                    continue
                name = f"{folder.name}-{boxed.photo.stem}-{index}"
                write_bytes(args.output / "labels" / f"{name}.png", cv2.imencode(".png", labels)[1].tobytes())
                x0, y0, x1, y1 = (float(v) for v in box)
                people.append(Person(name, str(boxed.photo), (x0, y0, x1, y1)))
        write_index(args.output, people)
    print(f"wrote {args.output}: {len(people)} people; {unfit} left out, whose silhouette and box disagree")
    return 0


if __name__ == "__main__":
    run_module(main)
