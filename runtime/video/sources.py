"""An address as the user writes it -> its source."""

from collections.abc import Iterator
from pathlib import Path

from qanet.errors import QanetError
from qanet.images import IMAGE_SUFFIXES, read_image
from qanet.runtime.video.decoders import choose
from qanet.runtime.video.frame import DEFAULT_FPS, Frame, Source, frame_rate, read_frame
from qanet.runtime.video.live import is_live, open_live
from qanet.runtime.video.pipe import open_stdin

STDIN = "-"


def open_source(
    uri: str, decoder: str = "auto", size: tuple[int, int] | None = None, rate: float | None = None
) -> Source:
    """A source for a path, for the address of a live one, or for standard input, "-".

    Args:
        uri: what the user wrote.
        decoder: of videos, see `decoders.choice.choose`.
        size: (width, height) that a camera is asked for.
        rate: frames a second that a camera is asked for, or that standard input and folders are said to have.
    Raises:
        QanetError: nothing there, an empty folder, a file of no known kind.
    """
    if uri == STDIN:
        return open_stdin(rate or DEFAULT_FPS)
    if is_live(uri):
        return open_live(uri, decoder, size, rate)
    source = _open_path(uri, decoder)
    if rate and source.kind == "folder":
        source.fps = rate
    return source


def _open_path(uri: str, decoder: str) -> Source:
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
    return VideoFile(path, decoder)


_MAX_BROKEN = 250  # frames in a row before a file counts as ended: ten seconds


class VideoFile:
    """A file. A broken frame in the middle is skipped and counted; rotation metadata is obeyed."""

    kind = "video"

    def __init__(self, path: Path, decoder: str = "auto"):
        import cv2

        self.path = path
        self.warnings: list[str] = []
        self.skipped = 0
        choice = choose(path, decoder)
        self._decoder, self.decoder = choice.decoder, choice.to_json()
        capture = self._decoder.open(path)
        ok = capture is not None and read_frame(capture) is not None
        if not ok or capture is None:
            size, by = path.stat().st_size, "" if decoder == "auto" else f" by the {decoder} decoder"
            raise QanetError(
                f"{path} cannot be decoded as video{by}",
                expected="a video with at least one frame",
                got=f"{size} bytes that start with {path.open('rb').read(8)!r}",
                next_command="check it with ffprobe",
            )
        self.fps = frame_rate(capture)
        self.expected_frames = max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        capture.release()

    def __iter__(self) -> Iterator[Frame]:
        capture = self._decoder.open(self.path)
        if capture is None:
            raise QanetError(f"{self.path} cannot be opened again", expected="a file that stays while it is parsed")
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
