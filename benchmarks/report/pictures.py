"""The report's pictures as JPEG: sample frames, and the crop on which the precisions differ most."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qanet.benchmarks.check import Checked
from qanet.benchmarks.samples import Sample
from qanet.bundle import Bundle
from qanet.drawing import blend_labels
from qanet.errors import QanetError
from qanet.labels import LabelSet
from qanet.runtime.parser import Parser

SAMPLE_FRAMES = 4
_MAX_WIDTH = 1120
_MAX_BYTES = 150 * 1024
_DIFFERENCE_BGR = (0, 94, 213)  # vermillion


Legend = list[tuple[str, tuple[int, int, int]]]  # class names and their RGB colours


@dataclass(frozen=True)
class Picture:
    """An encoded picture, its size in pixels and its caption."""

    data: bytes
    mime: str
    width: int
    height: int
    caption: str


@dataclass(frozen=True)
class Pictures:
    """Sample frames, and one crop through all precisions; each with the classes that are in it."""

    frames: list[Picture] = field(default_factory=list)
    frame_legend: Legend = field(default_factory=list)
    crops: list[Picture] = field(default_factory=list)
    crop_note: str | None = None
    crop_legend: Legend = field(default_factory=list)


def gather_pictures(
    bundle: Bundle,
    checked: Checked,
    samples: Sequence[Sample],
    crops: NDArray[np.uint8],
    overlay: Path | None = None,
    people_by_frame: Sequence[int] | None = None,
) -> Pictures:
    """All pictures of a report.

    Args:
        samples: frames with people, to be parsed and drawn by the last engine that passed its check.
        crops: (N, H, W, 3) uint8 BGR, those of `checked.parsings`.
        overlay: a drawn video to take the sample frames from instead.
        people_by_frame: how many people were found in each frame of it.
    Raises:
        QanetError: the overlay cannot be decoded.
    """
    # The frames of a drawn video contain their legend.
    frames, legend = (
        (overlay_frames(overlay, people_by_frame), []) if overlay else drawn_frames(bundle, checked, samples)
    )
    return Pictures(frames, legend, *difference_pictures(bundle.labels, checked, crops))


def drawn_frames(bundle: Bundle, checked: Checked, samples: Sequence[Sample]) -> tuple[list[Picture], Legend]:
    """Up to SAMPLE_FRAMES frames, parsed and drawn by the last engine that passed its check; none without one."""
    if not checked.engines:
        return [], []
    precision, engine = list(checked.engines.items())[-1]
    parser = Parser(bundle, engine, "kernel" if "logits" in engine.outputs else "graph")
    chosen = np.unique(np.linspace(0, len(samples) - 1, min(SAMPLE_FRAMES, len(samples))).round().astype(int))
    pictures = []
    present: set[int] = set()
    for index in chosen:
        sample = samples[index]
        result = parser.parse(sample.image, sample.found)
        present |= set(np.unique(result.labels).tolist())
        people = "1 person" if len(result) == 1 else f"{len(result)} people"
        x0, y0, x1, y1 = region_of_people(sample.found.boxes, sample.image.shape[:2])
        drawn = result.draw(legend=False)[y0:y1, x0:x1]
        cut = "" if drawn.shape == sample.image.shape else ", cut to the people"
        pictures.append(jpeg(drawn, f"frame {sample.name}, {people}, parsed in {precision}{cut}"))
    return pictures, _legend(bundle.labels, present)


def region_of_people(boxes: NDArray[np.float32], image_hw: tuple[int, ...]) -> tuple[int, int, int, int]:
    """The part of a frame to show, x0, y0, x1, y1 in whole pixels: all boxes (N, 4) with a margin, in 4:3 where the
    frame allows. In the whole of a large frame small people would be invisible."""
    height, width = image_hw
    low, high = boxes[:, :2].min(0), boxes[:, 2:].max(0)
    centre, size = (low + high) / 2, (high - low) * 1.3 + 40
    wide = min(max(size[0], size[1] * 4 / 3, 0.3 * width), width)
    tall = min(max(size[1], wide * 3 / 4), height)
    x0 = int(np.clip(centre[0] - wide / 2, 0, width - wide))
    y0 = int(np.clip(centre[1] - tall / 2, 0, height - tall))
    return x0, y0, x0 + int(wide), y0 + int(tall)


def overlay_frames(path: Path, people_by_frame: Sequence[int] | None = None) -> list[Picture]:
    """SAMPLE_FRAMES frames spread over a drawn video; the first and the last eighth are left out.

    Args:
        people_by_frame: how many people were found in each; frames without any are then left out.
    Raises:
        QanetError: the video cannot be decoded.
    """
    import cv2

    capture = cv2.VideoCapture(str(path))
    count = 0
    try:
        while capture.grab():  # announced counts may be wrong, and seeking in VP8 is not exact
            count += 1
    finally:
        capture.release()
    if not count:
        raise QanetError(f"{path} cannot be decoded as video", expected="an overlay that qanet parse wrote")
    found = list(people_by_frame or ())
    shown = [index for index in range(min(count, len(found))) if found[index]] or list(range(count))
    wanted = {shown[int((k + 0.5) * len(shown) / SAMPLE_FRAMES)] for k in range(SAMPLE_FRAMES)}
    pictures = []
    capture = cv2.VideoCapture(str(path))
    try:
        for index in range(count):
            if capture.grab() and index in wanted:
                ok, image = capture.retrieve()
                if ok:
                    words = f"frame {index} of {path.name}"
                    if len(shown) < count:
                        words += f", one of the {len(shown)} of {count} with people"
                    pictures.append(jpeg(np.asarray(image, np.uint8), words))
    finally:
        capture.release()
    return pictures


def difference_pictures(
    labels: LabelSet, checked: Checked, crops: NDArray[np.uint8]
) -> tuple[list[Picture], str | None, Legend]:
    """The crop on which any precision differs most from the reference: picture, labels, and maps of the difference."""
    reference = checked.reference
    others = {p: parsing for p, parsing in checked.parsings.items() if parsing is not reference and parsing.finite}
    if reference is None or not others:
        return [], None, []
    differing = np.stack([(parsing.labels != reference.labels).mean((1, 2)) for parsing in others.values()])
    index = int(differing.max(0).argmax())
    crop, truth = crops[index], reference.labels[index]
    pictures = [jpeg(crop, "the crop"), _label_picture(crop, truth, labels, f"labels of {checked.reference_name}")]
    present = set(np.unique(truth).tolist())
    for precision, parsing in others.items():
        mine = parsing.labels[index]
        present |= set(np.unique(mine).tolist())
        pictures.append(_label_picture(crop, mine, labels, f"labels of {precision}"))
        wrong = mine != truth
        caption = f"{precision}: {wrong.mean():.2%} of the pixels differ"
        pictures.append(_difference_picture(crop, wrong, caption))
    note = f"The one of {len(crops)} crops on which a precision differs most."
    return pictures, note, _legend(labels, present)


def _legend(labels: LabelSet, present: set[int]) -> Legend:
    colours = labels.colours_rgb.tolist()
    return [(labels.classes[c], (colours[c][0], colours[c][1], colours[c][2])) for c in sorted(present) if c]


def _label_picture(crop: NDArray[np.uint8], map_: NDArray[np.uint8], labels: LabelSet, caption: str) -> Picture:
    canvas = crop.copy()
    blend_labels(canvas, map_, labels, 0.8)
    return jpeg(canvas, caption)


def _difference_picture(crop: NDArray[np.uint8], wrong: NDArray[np.bool_], caption: str) -> Picture:
    """Differing pixels in one strong colour over the faded crop."""
    grey = crop.mean(2, keepdims=True)
    canvas = np.repeat(grey * 0.35 + 255 * 0.65, 3, axis=2).astype(np.uint8)
    canvas[wrong] = _DIFFERENCE_BGR
    return jpeg(canvas, caption)


def jpeg(image: NDArray[np.uint8], caption: str, max_bytes: int = _MAX_BYTES) -> Picture:
    """An (H, W, 3) uint8 BGR image as JPEG: shrunk to 1120 px width, then coarser until it fits `max_bytes`."""
    import cv2

    scale = min(1.0, _MAX_WIDTH / image.shape[1])
    if scale < 1:
        size = (_MAX_WIDTH, max(1, round(image.shape[0] * scale)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    encoded = b""
    for quality in (88, 80, 72, 64, 56, 48, 40):
        ok, buffer = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
        if not ok:
            raise QanetError("a picture of the report cannot be encoded as JPEG", got=image.shape)
        encoded = buffer.tobytes()
        if len(encoded) <= max_bytes:
            break
    return Picture(encoded, "image/jpeg", image.shape[1], image.shape[0], caption)
