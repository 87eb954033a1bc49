"""Where frames come from: a video file, a folder of images, or one image."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from qanet.errors import QanetError
from qanet.images import IMAGE_SUFFIXES, as_bgr, quiet_opencv, read_image


@dataclass(frozen=True)
class Frame:
    """One picture: its number, its name (a file's name, or the number), (H, W, 3) uint8 BGR."""

    index: int
    name: str
    image: NDArray[np.uint8]


class Source(Protocol):
    """Iterates frames; `warnings` is complete once it is exhausted."""

    kind: str  # "video", "folder" or "image"
    fps: float
    expected_frames: int  # 0 where unknown
    warnings: list[str]

    def __iter__(self) -> Iterator[Frame]: ...


class VideoFile:
    """A file that OpenCV decodes."""

    kind = "video"

    def __init__(self, path: Path):
        import cv2

        self.path = path
        self.warnings: list[str] = []
        with quiet_opencv():
            capture = cv2.VideoCapture(str(path))
            ok, first = capture.read() if capture.isOpened() else (False, None)
        if not ok or first is None:
            size = path.stat().st_size
            raise QanetError(
                f"{path} cannot be decoded as video", expected="a video with at least one frame",
                got=f"{size} bytes that start with {path.open('rb').read(8)!r}", next_command="check it with ffprobe",
            )  # fmt: skip
        rate = capture.get(cv2.CAP_PROP_FPS)
        self.fps = float(rate) if 0 < rate < 1000 else 25.0
        self.expected_frames = max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        capture.release()

    def __iter__(self) -> Iterator[Frame]:
        import cv2

        capture = cv2.VideoCapture(str(self.path))
        count = 0
        try:
            while True:
                ok, image = capture.read()
                if not ok or image is None:
                    break
                yield Frame(count, str(count), as_bgr(image))
                count += 1
        finally:
            capture.release()
        if count < self.expected_frames:
            self.warnings.append(
                f"{self.path} ends early: {self.expected_frames} frames announced, {count} read and parsed"
            )


class ImageFiles:
    """One image, or the images of a folder in the order of their names."""

    fps = 10.0

    def __init__(self, paths: list[Path], kind: str):
        self.paths, self.kind = paths, kind
        self.expected_frames = len(paths)
        self.warnings: list[str] = []

    def __iter__(self) -> Iterator[Frame]:
        for index, path in enumerate(self.paths):
            try:
                image = read_image(path)
            except QanetError as error:
                if self.kind == "image":
                    raise
                self.warnings.append(f"skipped: {error}")  # one bad picture does not stop a folder
                if len(self.warnings) == len(self.paths):
                    raise QanetError(f"no image in {path.parent} can be read; the last: {error}") from error
                continue
            yield Frame(index, path.name, image)


def open_source(uri: str) -> Source:
    """A source for a path.

    Raises:
        QanetError: nothing there, an empty folder, a file of no known kind.
    """
    path = Path(uri.removeprefix("file://"))
    if not path.exists():
        raise QanetError(f"no input {uri}", expected="a video, an image or a folder of images", got="nothing there")
    if path.is_dir():
        names = (p for p in path.iterdir() if not p.name.startswith("."))
        images = sorted(p for p in names if p.suffix.lower() in IMAGE_SUFFIXES)
        if not images:
            raise QanetError(f"no images in {path}", expected=f"files that end in {', '.join(IMAGE_SUFFIXES)}", got=0)
        return ImageFiles(images, "folder")
    if path.stat().st_size == 0:
        raise QanetError(f"{path} is empty", expected="a video or an image", got="0 bytes")
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return ImageFiles([path], "image")
    return VideoFile(path)
