"""Where results go: a video, a folder of PNGs, one image, JSON lines. Each file appears whole or not at all."""

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from qanet.errors import QanetError
from qanet.files import check_room, write_bytes, written_aside
from qanet.images import IMAGE_SUFFIXES, quiet_opencv
from qanet.results import ParsingResult
from qanet.runtime.video.source import Frame

if TYPE_CHECKING:
    import cv2

_CODECS = {".webm": "VP80", ".mp4": "mp4v", ".avi": "MJPG"}
_LEAST_SIDE_PX = 16
_SPARE_BYTES = 64 * 2**10  # what must still fit at the end: more than an encoder's buffer
_FREE_BYTES = 16 * 2**20  # below this a disk counts as full: encoders fail silently when it runs out


class Sink(Protocol):
    """Takes results in order; entered once, closed once."""

    def __enter__(self) -> Any: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def write(self, frame: Frame, result: ParsingResult) -> None:
        """One frame's result."""
        ...


class _FileSink:
    """Writes aside; the file gets its name when the run ends, by its end or by Ctrl-C, and vanishes on an error."""

    def __init__(self, path: Path):
        self.path = path
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "_FileSink":
        if self.path.is_dir():
            raise QanetError(f"cannot write {self.path}", expected="a file's name", got="a folder of that name")
        self._aside = self._stack.enter_context(written_aside(self.path))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)


class JsonLines(_FileSink):
    """A line of JSON a frame."""

    def __enter__(self) -> "JsonLines":
        super().__enter__()
        self._file = self._stack.enter_context(self._aside.open("w"))
        return self

    def write(self, frame: Frame, result: ParsingResult) -> None:
        """See `Sink.write`."""
        record = {"frame": frame.index, "name": frame.name, **result.to_json()}
        try:
            self._file.write(json.dumps(record, separators=(",", ":")) + "\n")
        except OSError as error:
            raise QanetError(
                f"could not write {self.path}", got=error.strerror, next_command="free some space"
            ) from error


class VideoFileSink(_FileSink):
    """An overlay video; .webm (VP8) plays in every browser."""

    def __init__(self, path: Path, fps: float, max_width: int = 0):
        super().__init__(path)
        if path.suffix.lower() not in _CODECS:
            raise QanetError(f"unknown video format {path.name}", expected=", ".join(_CODECS), got=path.suffix)
        self.fps, self.max_width = fps, max_width
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self._frames = 0

    def write(self, frame: Frame, result: ParsingResult) -> None:
        """See `Sink.write`."""
        import cv2

        picture = result.draw(max_width=self.max_width)
        if self._writer is None:
            self._open(picture)
        assert self._writer is not None
        if (picture.shape[1], picture.shape[0]) != self._size:
            picture = cv2.resize(picture, self._size, interpolation=cv2.INTER_AREA)
        if self._frames % 32 == 0:
            check_room(self.path.parent, _FREE_BYTES)
        with quiet_opencv():
            self._writer.write(picture)
        self._frames += 1

    def _open(self, picture: NDArray[np.uint8]) -> None:
        import cv2

        height, width = picture.shape[:2]
        # encoders want even sides, and VP8 fails below some size
        self._size = (max(_LEAST_SIDE_PX, width // 2 * 2), max(_LEAST_SIDE_PX, height // 2 * 2))
        codec = cv2.VideoWriter.fourcc(*_CODECS[self.path.suffix.lower()])
        with _quiet_stderr():
            self._writer = cv2.VideoWriter(str(self._aside), codec, self.fps, self._size)
        if not self._writer.isOpened():
            raise QanetError(f"cannot encode {self.path}", expected="an OpenCV with this codec", got=self.path.suffix)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            with quiet_opencv():
                self._writer.release()
        if kind is None:
            lack = QanetError(f"{self.path} has no frame") if self._writer is None else self._incomplete()
            if lack is not None:  # leave no empty or broken video behind
                super().__exit__(type(lack), lack, None)
                if self._writer is None:
                    return  # interrupted before the first frame: there is nothing to keep
                raise lack
        super().__exit__(kind, error, trace)

    def _incomplete(self) -> QanetError | None:
        """What is wrong with the file that was written: encoders do not say that the disk is full."""
        import cv2

        with quiet_opencv():
            capture = cv2.VideoCapture(str(self._aside))
            found = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
            capture.release()
        got = f"{max(found, 0)} on the disk"
        if found >= 0.98 * self._frames - 1:  # WebM tells its duration, which may be right where its end is lost
            try:
                size = self._aside.stat().st_size
                with self._aside.open("rb+") as file:
                    file.seek(size)
                    file.write(bytes(_SPARE_BYTES))
                os.truncate(self._aside, size)
                return None
            except OSError as error:
                got = str(error.strerror)
        return QanetError(
            f"could not write {self.path}", expected=f"a video of {self._frames} frames", got=got,
            next_command="free some space or choose another place",
        )  # fmt: skip


class Pictures:
    """PNG overlays in a folder, one a frame, or one picture for one image."""

    def __init__(self, path: Path, single: bool):
        self.path, self.single = path, single
        self._written: set[Path] = set()

    def __enter__(self) -> "Pictures":
        folder = self.path.parent if self.single else self.path
        if folder.exists() and not folder.is_dir():
            raise QanetError(f"cannot write {self.path}", expected="a folder", got="a file of that name")
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def write(self, frame: Frame, result: ParsingResult) -> None:
        """See `Sink.write`."""
        import cv2

        number = f"{frame.index:06d}" if frame.name == str(frame.index) else Path(frame.name).stem
        target = self.path if self.single else self.path / f"{number}.png"
        if target in self._written:  # a.jpg and a.png in one folder
            target = target.with_stem(f"{number}-{frame.index}")
        self._written.add(target)
        ok, data = cv2.imencode(target.suffix, result.draw())
        if not ok:
            raise QanetError(f"cannot encode {target}", expected="a format this OpenCV writes", got=target.suffix)
        write_bytes(target, data.tobytes())


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """FFmpeg inside OpenCV writes a remark about codec tags straight to file descriptor 2; no user needs it."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(nowhere)
        os.close(kept)


def open_sinks(output: str | None, results: str | None, source_kind: str, fps: float, max_width: int = 0) -> list[Sink]:
    """The sinks a command line asks for.

    Raises:
        QanetError: an output whose kind does not fit the input.
    """
    sinks: list[Sink] = []
    if results:
        sinks.append(JsonLines(Path(results)))
    if output:
        path = Path(output)
        suffix = path.suffix.lower()
        if suffix in _CODECS:
            sinks.append(VideoFileSink(path, fps, max_width))
        elif suffix in IMAGE_SUFFIXES:
            if source_kind != "image":
                raise QanetError(
                    f"{output} holds one picture, the input is a {source_kind}", expected="a folder or a .webm file",
                    got=suffix, next_command=f"qanet parse INPUT {path.with_suffix('.webm')}",
                )  # fmt: skip
            sinks.append(Pictures(path, single=True))
        elif suffix == "" or path.is_dir():
            sinks.append(Pictures(path, single=False))
        else:
            known = ", ".join((*_CODECS, *IMAGE_SUFFIXES))
            raise QanetError(f"unknown output format {output}", expected=f"a folder or {known}", got=suffix)
    return sinks
