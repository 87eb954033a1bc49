"""Boxes that several detectors find in photographs: `qanet train person-lite0 --looks` learns where they agree.

    python -m qanet.benchmarks.lab.detector_looks PEOPLE --detector yolox_nano.onnx --detector nanodet_m.onnx \
        --output looks.json

The looks at a picture are each detector's boxes, and those of the first detector on the mirrored picture. PEOPLE is a
folder as `qanet train person-lite0` takes it. Labelled pictures are included, since their labels may lack people.
Pictures that are in the output already are skipped.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.commandline import CommandParser, emit, run_module
from qanet.errors import QanetError
from qanet.files import sha256_bytes, write_text
from qanet.geometry import suppress
from qanet.images import IMAGE_SUFFIXES, read_image
from qanet.runtime.detectors.base import Detections
from qanet.runtime.detectors.graph import compile_graph, letterbox, read_graph
from qanet.runtime.detectors.open import OnnxDetector

LEAST_SCORE = 0.08  # of a box
KINDS = ("labelled", "unlabelled")  # of the folder's sources
_NMS_IOU = 0.5

Look = Callable[[NDArray[np.uint8]], Detections]


class Nanodet:
    """NanoDet-m of 80 classes (RangiLyu/nanodet), as ONNX: per cell a class score and distributions of four
    distances.

    Outputs: cls_pred_stride_S (1, A, 80) in 0..1, dis_pred_stride_S (1, A, 32) logits of eight distances per side.
    """

    STRIDES = (8, 16, 32)
    _MEAN, _STD = (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)  # BGR

    def __init__(self, path: Path, threads: int | None = None):
        model, graph = read_graph(path)
        names = {port.name for port in graph.outputs}
        wanted = {f"{what}_pred_stride_{stride}" for what in ("cls", "dis") for stride in self.STRIDES}
        if graph.image_hw is None or not wanted <= names:
            raise QanetError(f"{path.name} is no NanoDet", expected=", ".join(sorted(wanted)), got=", ".join(names))
        self._input_hw, self._request = graph.image_hw, compile_graph(model, threads)

    def __call__(self, image: NDArray[np.uint8]) -> Detections:
        """People of LEAST_SCORE or more, in image pixels."""
        blob, lies = letterbox(image, self._input_hw, centred=False, rgb01=False)
        mean, std = (np.array(v, np.float32).reshape(1, 3, 1, 1) for v in (self._MEAN, self._STD))
        self._request.infer([(blob - mean) / std])
        scores, boxes = zip(*(self._level(stride) for stride in self.STRIDES))
        found, sure = lies.to_image(np.concatenate(boxes)), np.concatenate(scores)
        likely = np.flatnonzero(sure >= LEAST_SCORE)
        found, sure = found[likely], sure[likely]
        limits = np.array([image.shape[1], image.shape[0]] * 2, np.float32)
        found = np.clip(found, 0, limits)
        kept = suppress(found, sure, _NMS_IOU) if len(found) else np.zeros(0, np.intp)
        return Detections(found[kept], sure[kept])

    def _level(self, stride: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Scores (A,) and boxes (A, 4) in input pixels of the cells of a stride."""
        scores = np.array(self._request.get_tensor(f"cls_pred_stride_{stride}").data)[0, :, 0]
        logits = np.array(self._request.get_tensor(f"dis_pred_stride_{stride}").data)[0].reshape(len(scores), 4, -1)
        powers = np.exp(logits - logits.max(2, keepdims=True))
        steps = (powers / powers.sum(2, keepdims=True)) @ np.arange(logits.shape[2], dtype=np.float32)
        rows, columns = (side // stride for side in self._input_hw)
        ys, xs = np.mgrid[:rows, :columns]
        centre = (np.stack([xs.ravel(), ys.ravel()], 1) + 0.5) * stride
        boxes = np.concatenate([centre - steps[:, :2] * stride, centre + steps[:, 2:] * stride], 1)
        return scores.astype(np.float32), boxes.astype(np.float32)


def looks_of(files: Sequence[Path], threads: int | None = None) -> list[Look]:
    """Functions from a picture to boxes: the first detector, the same on the mirrored picture, then the NanoDets.

    Raises:
        QanetError: fewer than two detectors, or a file of another kind.
    """
    if len(files) < 2:
        raise QanetError("one detector is not enough", expected="two, whose agreement is learnt", got=len(files))
    first = OnnxDetector(files[0], LEAST_SCORE, threads)

    def mirrored(image: NDArray[np.uint8]) -> Detections:
        found = first.detect(np.ascontiguousarray(image[:, ::-1]))
        boxes = found.boxes.copy()
        boxes[:, [0, 2]] = image.shape[1] - found.boxes[:, [2, 0]]
        return Detections(boxes, found.scores)

    return [first.detect, mirrored, *(Nanodet(file, threads) for file in files[1:])]


def look_at(roots: Sequence[Path], files: Sequence[Path], output: Path, threads: int | None = None) -> dict[str, Any]:
    """Run the detectors on every picture of the folders that is not in the output yet, and write the output.

    The output is JSON: "detectors" (a hash), "looks" (how many), and "seen": KIND/SOURCE/FILE to rows x0 y0 x1 y1 score
    look, in the picture's pixels.

    Raises:
        QanetError: no pictures, a picture that cannot be read, detectors as for `looks_of`.
    """
    key = sha256_bytes(b"".join(file.read_bytes() for file in files if file.is_file()))
    pictures = [p for root in roots for kind in KINDS for p in sorted((root / kind).glob("*/images/*"))]
    named = {f"{p.parents[2].name}/{p.parents[1].name}/{p.name}": p for p in pictures if p.suffix in IMAGE_SUFFIXES}
    if not named:
        raise QanetError(
            "no pictures", expected=f"{', '.join(KINDS)} with SOURCE/images", got=", ".join(str(root) for root in roots)
        )
    looks = looks_of(files, threads)
    known = json.loads(output.read_text()) if output.is_file() else {}
    seen: dict[str, list[list[float]]] = known["seen"] if known.get("detectors") == key else {}
    missing = [name for name in named if name not in seen]
    for name in missing:
        image = read_image(named[name])
        seen[name] = [
            [*(round(v, 1) for v in box), round(score, 3), number]
            for number, found in enumerate(look(image) for look in looks)
            for box, score in zip(found.boxes.tolist(), found.scores.tolist())
        ]
    write_text(output, json.dumps({"detectors": key, "looks": len(looks), "seen": seen}))
    return {"output": str(output), "pictures": len(named), "looked_at": len(missing), "looks": len(looks)}


def main(argv: Sequence[str]) -> int:
    """Entry point."""
    parser = CommandParser(prog="python -m qanet.benchmarks.lab.detector_looks", description=__doc__.split("\n")[0])
    parser.add_argument("folders", type=Path, nargs="+", metavar="PEOPLE")
    parser.add_argument(
        "--detector", type=Path, action="append", required=True, metavar="ONNX", help="a YOLOX, then a NanoDet"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.json")
    parser.add_argument("--threads", type=int, help="CPU threads of each detector")
    parser.add_argument("--json", action="store_true")
    args: argparse.Namespace = parser.parse_args(argv)
    done = look_at(args.folders, args.detector, args.output, args.threads)
    emit(args.json, done, f"{done['looked_at']} of {done['pictures']} pictures looked at; {done['output']}")
    return 0


if __name__ == "__main__":
    run_module(main)
