"""Boxes of people in frames or photographs by a detector that serves as a teacher: data to train from.

    python -m qanet.benchmarks.lab.detector_labels clip.avi --detector yolox_nano.onnx --output more/labelled/clip
    python -m qanet.benchmarks.lab.detector_labels photos/ --detector yolox_nano.onnx --nobody --output more/empty/x

Both write a source for `qanet train person-lite0 --more more`: DIR/images, and with the first DIR/persons.json (COCO's
images and annotations, with the teacher's scores). The second keeps only photographs in which the teacher finds no
person.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.commandline import CommandParser, emit, note, run_module
from qanet.errors import QanetError
from qanet.files import write_bytes, write_text
from qanet.images import IMAGE_SUFFIXES, read_image
from qanet.runtime.detectors.base import Detector

LEAST_SCORE = 0.1  # a less certain box counts as background
_JPEG_QUALITY = 95
_PERSON = 1  # COCO's category


def label(
    source: str,
    teacher: Detector,
    output: Path,
    frames: slice = slice(None),
    *,
    nobody: bool = False,
    longest_px: int = 1280,
) -> dict[str, Any]:
    """Write the images and the boxes that the teacher finds in them.

    Args:
        source: a video, or a folder of pictures (its folders too).
        frames: of the video or of the sorted pictures.
        nobody: keep only images without a person, and write no boxes.
        longest_px: larger images are shrunk to this longer side; boxes are of the shrunk image.
    Raises:
        QanetError: nothing to read, nothing kept, or a full disk.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    seen = 0
    for name, image in _images(source, frames):
        image = _shrunk(image, longest_px)
        found = teacher.detect(image, seen)
        seen += 1
        if nobody and len(found):
            continue
        images.append(
            {"id": len(images) + 1, "file_name": f"{name}.jpg", "height": image.shape[0], "width": image.shape[1]}
        )
        write_bytes(output / "images" / images[-1]["file_name"], _jpeg(image))
        for (x0, y0, x1, y1), score in zip(found.boxes.tolist(), found.scores.tolist()):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": len(images),
                    "category_id": _PERSON,
                    "iscrowd": 0,
                    "bbox": [round(v, 2) for v in (x0, y0, x1 - x0, y1 - y0)],
                    "score": round(score, 4),
                }
            )
    if not images:
        raise QanetError(f"nothing of {source} was kept", expected="an image or more", got=f"{seen} read")
    if not nobody:
        info = {"description": f"{Path(source).name}, people by {teacher.name}"}
        categories = [{"id": _PERSON, "name": "person"}]
        document = {"info": info, "categories": categories, "images": images, "annotations": annotations}
        write_text(output / "persons.json", json.dumps(document))
    return {"output": str(output), "read": seen, "images": len(images), "boxes": len(annotations)}


def _images(source: str, frames: slice) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Name and pixels of each image; a picture that cannot be read is reported and left out."""
    folder = Path(source)
    if folder.is_dir():
        files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
        for number, file in list(enumerate(files))[frames]:
            try:
                yield f"{number:05d}-{file.stem}", read_image(file)
            except QanetError as error:
                note(f"left out: {error}")
        return
    from qanet.runtime.video.sources import open_source

    chosen = range(10**9)[frames]
    for frame in open_source(source):
        if frame.index in chosen:
            yield f"{frame.index:06d}", frame.image
        if len(chosen) and frame.index >= chosen[-1]:
            return


def _shrunk(image: NDArray[np.uint8], longest_px: int) -> NDArray[np.uint8]:
    import cv2

    scale = longest_px / max(image.shape[:2])
    if scale >= 1:
        return image
    return np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)


def _jpeg(image: NDArray[np.uint8]) -> bytes:
    import cv2

    written, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    if not written:
        raise QanetError("a frame could not be encoded", expected="a picture", got=image.shape)
    return data.tobytes()


def frame_range(text: str) -> slice:
    """FIRST:END or FIRST:END:STEP, each may be left out; argparse's error otherwise."""
    try:
        parts = [int(part) if part else None for part in text.split(":")]
    except ValueError:
        parts = []
    if not 2 <= len(parts) <= 3 or any(part is not None and part < 0 for part in parts) or parts[2:] == [0]:
        raise argparse.ArgumentTypeError(f"expected FIRST:END or FIRST:END:STEP, got {text!r}")
    return slice(*parts)


def main(argv: Sequence[str]) -> int:
    """Entry point."""
    parser = CommandParser(prog="python -m qanet.benchmarks.lab.detector_labels", description=__doc__.split("\n")[0])
    parser.add_argument("source", metavar="VIDEO_OR_FOLDER")
    parser.add_argument("--detector", required=True, metavar="ONNX", help="the teacher")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR")
    parser.add_argument("--frames", type=frame_range, default=slice(None), metavar="FIRST:END[:STEP]")
    parser.add_argument("--nobody", action="store_true", help="keep images without a person; no boxes")
    parser.add_argument("--score", type=float, default=LEAST_SCORE, help=f"least score of a box ({LEAST_SCORE})")
    parser.add_argument("--longest", type=int, default=1280, metavar="PX", help="shrink larger images (1280)")
    parser.add_argument("--threads", type=int, help="CPU threads of the teacher")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    if not 0 < args.score <= 1 or args.longest < 32:
        raise QanetError("bad --score or --longest", expected="0..1, 32 or more", got=(args.score, args.longest))
    from qanet.runtime.detectors.open import OnnxDetector

    teacher = OnnxDetector(Path(args.detector), args.score, args.threads)
    done = label(args.source, teacher, args.output, args.frames, nobody=args.nobody, longest_px=args.longest)
    emit(args.json, done, f"{done['images']} of {done['read']} images, {done['boxes']} boxes, in {done['output']}")
    return 0


if __name__ == "__main__":
    run_module(main)
