"""Sources of frames that are not live: a video file, standard input, a folder of images, one image."""

import os
import select
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from qanet.errors import QanetError, printable
from qanet.images import read_image
from qanet.paths import local_path
from qanet.picture_files import PICTURE_SUFFIXES, READ, count_pictures, kind_of_file, pictures_of
from qanet.runtime.video.decoders import AvCapture, choose, has_pyav
from qanet.runtime.video.frame import DEFAULT_FPS, Capture, Frame, Source, frame_rate, last_time_s, read_frame
from qanet.runtime.video.live import is_live, open_live

STDIN = "-"
_MAX_BROKEN = 250  # failed reads in a row before a video counts as ended: ten seconds
_LOOK_S = 0.2  # between two looks at `stop` while a pipe is silent
_LOOK_BYTES = 4096
_CONTAINERS = {b"\xff\xd8\xff": "mjpeg", b"--": "mpjpeg"}  # FFmpeg does not recognise all of these by itself
_MJPEG = (".mjpeg", ".mjpg", ".mjp")
_NAMED = 5  # files that a warning names
_PIPE_NEXT = "ffmpeg -i INPUT -c copy -f matroska - | qanet parse -"


def open_source(
    uri: str, decoder: str = "auto", size: tuple[int, int] | None = None, rate: float | None = None
) -> Source:
    """A source for a path, an address of a camera or stream, or standard input, "-".

    Args:
        uri: as the user wrote it.
        decoder: of video files, see `decoders.choose`.
        size: (width, height) requested from a camera.
        rate: frames per second requested from a camera, or of standard input and folders.
    Raises:
        QanetError: no such file, an empty folder, an unknown kind of file.
    """
    if uri == STDIN:
        return open_stdin(rate)
    if is_live(uri):
        return open_live(uri, decoder, size, rate)
    path = local_path(uri)
    if not path.exists():
        raise QanetError(f"{uri}: no such file", expected="a video, an image or a folder of images")
    if path.is_dir():
        pictures, others = pictures_of(path)
        left_out = [f"left out of {path}, no pictures: {_names(others)}"] if others else []
        if not pictures:
            raise QanetError(f"no images in {path}", expected=READ, got=_names(others) if others else 0)
        return ImageFiles(pictures, "folder", rate, left_out)
    if path.is_file() and path.stat().st_size == 0:
        raise QanetError(f"{path} is empty", expected="a video or an image", got="0 bytes")
    return ImageFiles([path], "image") if _is_picture(path) else VideoFile(path, decoder)


def _names(paths: list[Path]) -> str:
    """How many, and the first of them by name."""
    shown = ", ".join(f"{path.name}/" if path.is_dir() else path.name for path in paths[:_NAMED])
    return f"{len(paths)}: {shown}" + (" ..." if len(paths) > _NAMED else "")


def _is_picture(path: Path) -> bool:
    """Whether a file is a still picture, by its content, or by its suffix where the content says nothing."""
    kind, suffix = kind_of_file(path), path.suffix.lower()
    if kind == "jpeg":
        return suffix not in _MJPEG  # pictures in a row
    if kind in ("gif", "png"):  # PyAV reads the animated ones as videos
        return not has_pyav() or _count(path, kind) < 2
    return kind is not None or suffix in PICTURE_SUFFIXES


def _count(path: Path, kind: str) -> int:
    try:
        return count_pictures(path.read_bytes(), kind)
    except OSError:  # said by whoever reads it
        return 1


class _Frames:
    """Iterates a capture to its end: numbers and times the frames, skips and counts the broken ones."""

    def __init__(self, capture: Capture, fps: float, expected_frames: int = 0, constant_rate: bool = False):
        self._capture, self._fps, self._expected, self._constant = capture, fps, expected_frames, constant_rate
        self.count = self.skipped = 0  # `count` includes the skipped
        self.first_skipped: int | None = None
        self.time_s: float | None = None  # of the last frame

    def __iter__(self) -> Iterator[Frame]:
        broken = 0  # since the last good frame
        while broken <= self._patience() and not getattr(self._capture, "ended", False):
            image = read_frame(self._capture)
            if image is None:
                broken += 1
                continue
            if broken:
                self.first_skipped = self.count if self.first_skipped is None else self.first_skipped
                self.skipped, self.count, broken = self.skipped + broken, self.count + broken, 0
            self.time_s = self._time()
            yield Frame(self.count, str(self.count), image, time_s=self.time_s)
            self.count += 1

    def _time(self) -> float:
        """The time in the file; by the frame rate where the file has none or runs backwards."""
        if self._constant:
            return self.count / self._fps
        time_s = last_time_s(self._capture)
        if self.time_s is None:
            return max(0.0, time_s)
        return time_s if time_s > self.time_s else self.time_s + 1 / self._fps

    def _patience(self) -> int:
        """Failed reads in a row that are taken for broken frames: fewer where they may also be the end."""
        if hasattr(self._capture, "ended"):
            return _MAX_BROKEN
        return min(_MAX_BROKEN, max(0, self._expected - self.count - 1))


class VideoFile:
    """A video file. A broken frame in the middle is skipped and counted; rotation metadata is applied."""

    kind = "video"

    def __init__(self, path: Path, decoder: str = "auto"):
        import cv2

        self.path = path
        self.warnings: list[str] = []
        self.skipped = 0
        choice = choose(path, decoder)
        self._decoder, self.decoder = choice.decoder, choice.to_json()
        capture = self._decoder.open(path)
        if (still := getattr(capture, "still", None)) is not None:
            raise QanetError(
                f"{path} is a picture of a kind that is not read",
                expected=READ,
                got=still,
                next_command=f"convert it to PNG: magick {path} {path.stem}.png",
            )
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
        frames = _Frames(capture, self.fps, self.expected_frames)
        self.skipped = 0
        try:
            for frame in frames:
                self.skipped = frames.skipped
                yield frame
        finally:
            capture.release()
        if frames.skipped:
            self.warnings.append(
                f"{self.path}: broken frames skipped: {frames.skipped}, the first is number {frames.first_skipped}"
            )
        missing_s = (self.expected_frames - 1.5) / self.fps - (frames.time_s or 0)
        if frames.count < self.expected_frames and missing_s > 0:  # a variable rate has fewer frames than estimated
            self.warnings.append(
                f"{self.path} ends early: {self.expected_frames} frames announced, {frames.count - frames.skipped} "
                "read and parsed"
            )


class PipeSource:
    """A video from a file descriptor, decoded by PyAV: Motion-JPEG, MPEG-TS, Matroska or another streamable format.

    The writer waits while frames are parsed; nothing is dropped.

    Args:
        descriptor: open for reading; it is not closed.
        name: for messages.
        fps: of the frames; None: as the stream says.
    """

    kind = "video"
    expected_frames = 0

    def __init__(self, descriptor: int, name: str, fps: float | None = None):
        self._descriptor, self.name, self._rate = descriptor, name, fps
        self.fps = fps or DEFAULT_FPS
        self.warnings: list[str] = []
        self.skipped = self._received = 0
        self._stopped = False
        self._ahead = b""  # received, and not yet given to the demuxer

    def __iter__(self) -> Iterator[Frame]:
        self._ahead = self._receive(_LOOK_BYTES).lstrip(b"\r\n")
        container = next((name for start, name in _CONTAINERS.items() if self._ahead.startswith(start)), None)
        try:
            capture = AvCapture(self, container=container)
        except OSError:
            self._refuse_empty()
            return
        frames = _Frames(capture, self.fps, constant_rate=self._rate is not None)
        try:
            for frame in frames:
                self.skipped = frames.skipped
                yield frame
        finally:
            capture.release()
        if frames.skipped:
            self.warnings.append(f"{self.name}: broken frames skipped: {frames.skipped}")
        if frames.time_s is None:
            self._refuse_empty()

    def _refuse_empty(self) -> None:
        if not self._stopped:
            got = f"{self._received} bytes without a frame" if self._received else "nothing"
            raise QanetError(f"no frame on {self.name}", expected="a video", got=got, next_command=_PIPE_NEXT)

    def read(self, size: int) -> bytes:
        """The next bytes, for the demuxer; empty at the end, and after `stop`."""
        if self._ahead:
            data, self._ahead = self._ahead[:size], self._ahead[size:]
            return data
        return self._receive(size)

    def _receive(self, size: int) -> bytes:
        while not self._stopped:
            if select.select([self._descriptor], [], [], _LOOK_S)[0]:
                data = os.read(self._descriptor, size)
                self._received += len(data)
                return data
        return b""

    def stop(self) -> None:
        """End the iteration soon, from another thread."""
        self._stopped = True


def open_stdin(fps: float | None = None) -> PipeSource:
    """Standard input.

    Raises:
        QanetError: it is closed or a terminal, or PyAV is not installed.
    """
    try:
        descriptor = sys.stdin.fileno()
    except (AttributeError, OSError, ValueError):
        raise QanetError("standard input is closed", expected="a video", next_command=_PIPE_NEXT) from None
    if os.isatty(descriptor):
        raise QanetError("standard input is a terminal", expected="a video", next_command=_PIPE_NEXT)
    if not has_pyav():
        raise QanetError("cannot read standard input", expected="PyAV", got="none", next_command="pip install av")
    return PipeSource(descriptor, "standard input", fps)


class ImageFiles:
    """One image, or the images of a folder in the order given.

    Args:
        paths: of the images.
        kind: "image" or "folder".
        fps: of a folder's overlay; None: 10.
        warnings: that are known already.
    """

    def __init__(self, paths: list[Path], kind: str, fps: float | None = None, warnings: Sequence[str] = ()):
        self.paths, self.kind, self.fps = paths, kind, fps or 10.0
        self.expected_frames = len(paths)
        self.warnings: list[str] = list(warnings)

    def __iter__(self) -> Iterator[Frame]:
        unread = 0
        for index, path in enumerate(self.paths):
            try:
                image = read_image(path, self.warnings.append)
            except QanetError as error:
                if self.kind == "image":
                    raise
                self.warnings.append(f"skipped: {error}")  # one bad picture does not stop a folder
                unread += 1
                if unread == len(self.paths):
                    raise QanetError(f"no image in {path.parent} can be read; the last: {error}") from error
                continue
            yield Frame(index, printable(path.name), image)
