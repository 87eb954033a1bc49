"""Scenes of pasted people as a folder of labelled images, for a teacher to look at before anyone learns from them.

    python -m qanet.train.detection.scenes.write --data CCP --backgrounds backgrounds --output frames/scenes
    python -m qanet.runtime.detectors.doubt frames/scenes --detector yolox_nano.onnx

Boxes are exact, their scores 1; people hardly seen have a score below 0 and count neither way. The second command
takes the teacher's doubts into the scores.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qanet.cli.commandline import CommandParser, emit, run_module
from qanet.errors import QanetError
from qanet.files import write_bytes, write_text
from qanet.train.detection.data import DetectionData, degraded
from qanet.train.detection.scenes.light import against_light

_AGAINST_LIGHT = 0.35  # share of scenes
_JPEG_QUALITY = 95


def write_scenes(data: DetectionData, count: int, side_px: int, output: Path, seed: int = 0) -> dict[str, Any]:
    """Write DIR/train.json and DIR/train/*.jpg, square scenes of `side_px`; the same seed writes the same scenes.

    Raises:
        QanetError: a full disk, or a photograph that cannot be read.
    """
    import cv2

    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(count):
        rng = np.random.default_rng((seed, number, 2))
        image, boxes = data.scene((side_px, side_px), rng)
        if rng.random() < _AGAINST_LIGHT:
            image = against_light(image, rng)
        image = degraded(image, rng)
        images.append({"id": number + 1, "file_name": f"train/{number:06d}.jpg", "height": side_px, "width": side_px})
        _, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
        write_bytes(output / images[-1]["file_name"], encoded.tobytes())
        for x0, y0, x1, y1, score in boxes.tolist():
            annotations.append({
                "id": len(annotations) + 1, "image_id": number + 1, "category_id": 1, "iscrowd": 0,
                "bbox": [x0, y0, x1 - x0, y1 - y0], "score": score,
            })  # fmt: skip
    document = {
        "info": {"description": "people of CCP pasted on photographs without people: synthetic, exact boxes"},
        "categories": [{"id": 1, "name": "person"}], "images": images, "annotations": annotations,
    }  # fmt: skip
    write_text(output / "train.json", json.dumps(document))
    return {"output": str(output), "images": count, "boxes": len(annotations)}


def main(argv: Sequence[str]) -> int:
    """Entry point."""
    parser = CommandParser(prog="python -m qanet.train.detection.scenes.write", description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, metavar="CCP")
    parser.add_argument("--backgrounds", type=Path, required=True, metavar="DIR", help="photographs without people")
    parser.add_argument("--count", type=int, default=4000, metavar="N", help="scenes (4000)")
    parser.add_argument("--side", type=int, default=512, metavar="PX", help="of a scene (512)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    if args.count < 1 or args.side < 64 or args.seed < 0:
        raise QanetError(
            "bad --count, --side or --seed", expected="1, 64, 0 or more", got=(args.count, args.side, args.seed)
        )
    done = write_scenes(
        DetectionData(args.data, args.backgrounds, [], 1, 1.0), args.count, args.side, args.output, args.seed
    )
    emit(args.json, done, f"{done['images']} scenes, {done['boxes']} boxes, in {args.output}")
    return 0


if __name__ == "__main__":
    run_module(main)
