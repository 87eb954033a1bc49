"""Person detectors on frames of three films whose people were boxed by eye: recall, precision and average precision.

    python -m qanet.benchmarks.lab.detector_on_films yolox_nano.onnx person-lite0 --films FOLDER --sheet sheets

FOLDER holds the films, which are not part of the project. The truth is tests/data/people_in_films.json: boxes around
the visible part of each person. `ignore` marks small or undecided people; a detection half inside such a box counts
neither way. `--sheet DIR` draws the truth on every frame, to check it by eye.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.benchmarks.real import LEAST_SCORE, open_for_ranking
from qanet.commandline import CommandParser, emit, run_module, table
from qanet.errors import QanetError
from qanet.files import write_bytes
from qanet.metrics.detection import DetectedImage, at_threshold, average_precision
from qanet.runtime.detectors.open import SCORE_THRESHOLD

TRUTH = Path(__file__).resolve().parents[2] / "tests" / "data" / "people_in_films.json"
_SHEET_COLUMNS, _SHEET_WIDTH_PX = 4, 640


def frames_of(clip: dict[str, Any], folder: Path) -> Iterator[tuple[dict[str, Any], NDArray[np.uint8]]]:
    """The labelled frames of a film, each with its entry of the truth.

    Raises:
        QanetError: no such film, or another one of the same name.
    """
    import cv2

    path = folder / clip["file"]
    if not path.is_file():
        raise QanetError(f"no film {path}", expected=clip["file"], got="nothing there")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != clip["sha256"]:
        raise QanetError(f"{path} is another film", expected=clip["sha256"][:16], got=digest[:16])
    wanted = {frame["index"]: frame for frame in clip["frames"]}
    capture = cv2.VideoCapture(str(path))
    for index in range(max(wanted) + 1):
        ok, image = capture.read()
        if not ok:
            raise QanetError(f"{path} ends at frame {index}", expected=f"{max(wanted) + 1} frames", got=index)
        if index in wanted:
            yield wanted[index], np.asarray(image, np.uint8)
    capture.release()


def _boxes(rows: list[list[float]]) -> NDArray[np.float32]:
    return np.array(rows, np.float32).reshape(-1, 4)


def _sheet(frames: list[tuple[dict[str, Any], NDArray[np.uint8]]]) -> NDArray[np.uint8]:
    """All frames of a film in one picture; people green, ignored ones yellow."""
    import cv2

    tiles = []
    for frame, image in frames:
        canvas = image.copy()
        for kind, colour in (("boxes", (0, 220, 0)), ("ignore", (0, 220, 220))):
            for x0, y0, x1, y1 in frame[kind]:
                cv2.rectangle(canvas, (int(x0), int(y0)), (int(x1), int(y1)), colour, 2)
        cv2.putText(canvas, str(frame["index"]), (6, 40), cv2.FONT_HERSHEY_SIMPLEX, 1.2, (0, 0, 255), 3)
        scale = _SHEET_WIDTH_PX / canvas.shape[1]
        tiles.append(cv2.resize(canvas, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % _SHEET_COLUMNS)
    rows = [np.hstack(tiles[i : i + _SHEET_COLUMNS]) for i in range(0, len(tiles), _SHEET_COLUMNS)]
    return np.asarray(np.vstack(rows), np.uint8)


def judge(names: Sequence[str], films: Path, sheet: Path | None) -> list[dict[str, Any]]:
    """One row per film and detector, and one per detector over all films."""
    import cv2

    detectors = [(Path(name).stem, open_for_ranking(name, "auto", None)) for name in names]
    rows, everything = [], {name: list[DetectedImage]() for name, _ in detectors}
    for clip in json.loads(TRUTH.read_text())["clips"]:
        frames = list(frames_of(clip, films))
        if sheet is not None:
            sheet.mkdir(parents=True, exist_ok=True)
            drawn = cv2.imencode(".png", _sheet(frames))[1]
            write_bytes(sheet / f"{Path(clip['file']).stem}.png", drawn.tobytes())
        for name, detector in detectors:
            images = []
            for frame, image in frames:
                found = detector.detect(image, frame["index"])
                images.append(
                    DetectedImage(found.boxes, found.scores, _boxes(frame["boxes"]), areas=_boxes(frame["ignore"]))
                )
            rows.append(_row(clip["file"], name, images))
            everything[name] += images
    return rows + [_row("all", name, images) for name, images in everything.items()]


def _row(film: str, detector: str, images: list[DetectedImage]) -> dict[str, Any]:
    recall, precision = at_threshold(images, SCORE_THRESHOLD)
    people = sum(len(image.true) for image in images)
    return {
        "film": film,
        "detector": detector,
        "people": people,
        "recall": round(recall, 3),
        "precision": round(precision, 3),
        "ap50": round(average_precision(images), 3),
    }


def main(argv: Sequence[str]) -> int:
    """Entry point."""
    parser = CommandParser(prog="python -m qanet.benchmarks.lab.detector_on_films", description=__doc__.split("\n")[0])
    parser.add_argument("detectors", nargs="+", metavar="NAME", help="a bundle or an ONNX file of a known form")
    parser.add_argument("--films", type=Path, required=True, metavar="DIR", help="folder of the three films")
    parser.add_argument("--sheet", type=Path, metavar="DIR", help="draw the truth on every frame into this folder")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout instead of text")
    args = parser.parse_args(argv)
    rows = judge(args.detectors, args.films, args.sheet)
    header = ("film", "detector", "people", f"recall at {SCORE_THRESHOLD}", "precision", "AP50")
    text = table([tuple(row.values()) for row in rows], header)
    emit(args.json, rows, f"{text}\nboxes of {LEAST_SCORE} and more are ranked")
    return 0


if __name__ == "__main__":
    run_module(main)
