"""Where frames come from: a video file, a folder of images, one image, or a live stream (see live.py)."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from qanet.errors import QanetError
from qanet.images import IMAGE_SUFFIXES, as_bgr, quiet_opencv, read_image

_DEFAULT_FPS = 25.0
_MAX_BROKEN = 250  # frames in a row before a file counts as ended: ten seconds


@dataclass(frozen=True)
class Frame:
    """One picture: its number, its name (a file's name, or the number), (H, W, 3) uint8 BGR.

    The number counts the source's frames, those that were skipped or dropped too. `captured_s` is when a live frame
    came, by the monotonic clock.
    """

    index: int
    name: str
    image: NDArray[np.uint8]
    captured_s: float | None = None


class Source(Protocol):
    """Iterates frames; `warnings` is complete once it is exhausted.

    Where it applies, `dropped`, `skipped` and `reconnects` count what `Summary` says.
    """

    kind: str  # "video", "folder", "image" or "live"
    fps: float
    expected_frames: int  # 0 where unknown
    warnings: list[str]

    def __iter__(self) -> Iterator[Frame]: ...


class Capture(Protocol):
    """What is asked of a decoder: OpenCV's VideoCapture."""

    def read(self) -> tuple[bool, Any]:
        """Whether there was a frame, and the frame."""
        ...

    def get(self, prop: int) -> float:
        """A property by OpenCV's number."""
        ...

    def release(self) -> None:
        """Close it."""
        ...


def read_frame(capture: Capture) -> NDArray[np.uint8] | None:
    """The next frame as BGR; None where there is none or it is broken."""
    import cv2

    try:
        ok, image = capture.read()
        return as_bgr(image) if ok and image is not None else None
    except (cv2.error, QanetError):
        return None


def frame_rate(capture: Capture) -> float:
    """Frames a second; 25 where the stream tells 0, NaN or nonsense."""
    import cv2

    rate = capture.get(cv2.CAP_PROP_FPS)
    return float(rate) if 0 < rate < 1000 else _DEFAULT_FPS


class VideoFile:
    """A file that OpenCV decodes. A broken frame in the middle is skipped and counted; rotation metadata is obeyed."""

    kind = "video"

    def __init__(self, path: Path):
        import cv2

        self.path = path
        self.warnings: list[str] = []
        self.skipped = 0
        with quiet_opencv():
            capture = cv2.VideoCapture(str(path))
            ok, first = capture.read() if capture.isOpened() else (False, None)
        if not ok or first is None:
            size = path.stat().st_size
            raise QanetError(
                f"{path} cannot be decoded as video", expected="a video with at least one frame",
                got=f"{size} bytes that start with {path.open('rb').read(8)!r}", next_command="check it with ffprobe",
            )  # fmt: skip
        self.fps = frame_rate(capture)
        self.expected_frames = max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        capture.release()

    def __iter__(self) -> Iterator[Frame]:
        import cv2

        with quiet_opencv():
            capture = cv2.VideoCapture(str(self.path))
        self.skipped = index = broken = 0  # `broken`: since the last good frame
        first_skipped = None
        try:
            while broken <= self._patience(index):
                image = read_frame(capture)
                if image is None:
                    broken += 1
                    continue
                if broken:
                    first_skipped = index if first_skipped is None else first_skipped
                    self.skipped += broken
                    index, broken = index + broken, 0
                yield Frame(index, str(index), image)
                index += 1
        finally:
            capture.release()
        if self.skipped:
            self.warnings.append(
                f"{self.path}: broken frames skipped: {self.skipped}, the first is number {first_skipped}"
            )
        if index < self.expected_frames:
            parsed = index - self.skipped
            self.warnings.append(
                f"{self.path} ends early: {self.expected_frames} frames announced, {parsed} read and parsed"
            )

    def _patience(self, index: int) -> int:
        """Failed reads to bear: those frames may be broken in the middle, and the announced number may be wrong."""
        return min(_MAX_BROKEN, max(0, self.expected_frames - index - 1))


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
    """A source for a path, or for the address of a live one.

    Raises:
        QanetError: nothing there, an empty folder, a file of no known kind.
    """
    from qanet.runtime.video.live import is_live, open_live

    if is_live(uri):
        return open_live(uri)
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
