"""Sinks of results: JSON lines, pictures, a window. Files appear complete or not at all."""

import contextlib
import json
import os
import re
import struct
import sys
import zlib
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from qanet.errors import QanetError
from qanet.files import fitting_name, write_bytes, written
from qanet.results import People
from qanet.runtime.video.frame import Frame


class StopRun(Exception):
    """Raised by a sink to end the run, as when its window is closed; written results are kept."""


class Sink(Protocol):
    """Takes results in order; entered once, closed once."""

    def __enter__(self) -> Any: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def write(self, frame: Frame, result: People) -> None:
        """Take one frame's result."""
        ...


class JsonLines:
    """One JSON line per frame: number, name, time in seconds, people. A pipe gets each line at once.

    A file appears when the run ends or Ctrl-C stops it; an error leaves none.
    """

    def __init__(self, path: Path):
        self.path = path
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "JsonLines":
        self._file = self._stack.enter_context(written(self.path))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def write(self, frame: Frame, result: People) -> None:
        """See `Sink.write`."""
        time_s = {} if frame.time_s is None else {"time_s": round(frame.time_s, 6)}
        record = {"frame": frame.index, "name": frame.name, **time_s, **result.to_json()}
        try:
            self._file.write(json.dumps(record, separators=(",", ":")).encode() + b"\n")
        except BrokenPipeError:  # its reader has seen enough, as head
            raise StopRun from None
        except OSError as error:
            raise QanetError(
                f"could not write {self.path}", got=error.strerror, next_command="free some space"
            ) from error


class Encode(Protocol):
    """Encodes a result as a picture file."""

    def __call__(self, result: People, suffix: str, /) -> bytes: ...


def overlay(result: People, suffix: str) -> bytes:
    """The image with parts, boxes and scores, in any format that OpenCV writes."""
    import cv2

    ok, data = cv2.imencode(suffix, result.draw())
    if not ok:
        raise QanetError(f"cannot encode a picture as {suffix}", expected="a format this OpenCV writes", got=suffix)
    return data.tobytes()


def label_map(result: People, suffix: str) -> bytes:
    """A PNG whose pixels are class ids, with the label set's colours for its palette."""
    return indexed_png(result.labels, result.label_set.colours_rgb)


class PictureNames:
    """The names of the pictures in a folder: the number of a video's frame, else the name of the photograph."""

    def __init__(self) -> None:
        self._given: set[str] = set()

    def name(self, frame_index: int, frame_name: str) -> str:
        """NAME.png; NAME-7.png for frame 7 where NAME.png is taken, as by a.jpg and a.png in one folder."""
        stem = f"{frame_index:06d}" if frame_name == str(frame_index) else Path(frame_name).stem
        name = fitting_name(stem, ".png")
        if name.casefold() in self._given:  # some file systems do not tell A from a
            name = fitting_name(stem, f"-{frame_index}.png")
        self._given.add(name.casefold())
        return name


class Pictures:
    """PNGs in a folder, one per frame, or one picture of one image.

    Args:
        path: the folder, or the file if `single`.
        single: whether there is only one image.
        encode: `overlay` or `label_map`.
    """

    def __init__(self, path: Path, single: bool, encode: Encode = overlay):
        self.path, self.single, self._encode = path, single, encode
        self._names = PictureNames()

    def __enter__(self) -> "Pictures":
        folder = self.path.parent if self.single else self.path
        if folder.exists() and not folder.is_dir():
            raise QanetError(f"cannot write {self.path}", expected="a folder", got="a file of that name")
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def write(self, frame: Frame, result: People) -> None:
        """See `Sink.write`."""
        target = self.path if self.single else self.path / self._names.name(frame.index, frame.name)
        write_bytes(target, self._encode(result, target.suffix))


_LEVEL = 3  # of zlib: label maps are flat, more gains little


def indexed_png(labels: NDArray[np.uint8], colours_rgb: NDArray[np.uint8]) -> bytes:
    """A PNG of colour type 3 (palette), 8 bits per pixel, which OpenCV cannot write.

    Args:
        labels: (H, W) uint8, each less than C.
        colours_rgb: (C, 3) uint8, C up to 256.
    """
    height, width = labels.shape
    rows = np.zeros((height, width + 1), np.uint8)  # a filter byte before each row: 0, none
    rows[:, 1:] = labels
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    chunks = (
        (b"IHDR", header),
        (b"PLTE", colours_rgb.tobytes()),
        (b"IDAT", zlib.compress(rows.tobytes(), _LEVEL)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in chunks)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


_QUIT_KEYS = (27, ord("q"))
_ELSE = "qanet parse INPUT OUTPUT.mp4"


class Display:
    """Shows each frame in an OpenCV window; q, Esc or closing the window ends the run.

    All window calls come from the thread that writes, as window systems require.
    """

    def __init__(self, title: str, max_width: int = 0):
        self.title, self.max_width = title, max_width
        self._shown = self._closed = False

    def __enter__(self) -> "Display":
        import cv2

        kind = re.search(r"GUI:\s*(\S+)", cv2.getBuildInformation())
        if kind is None or kind[1] == "NONE":
            raise QanetError(
                "no display",
                expected="an OpenCV with windows",
                got="a headless one",
                next_command=f"pip install opencv-python in place of opencv-python-headless, or {_ELSE}",
            )
        if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise QanetError("no display", expected="a desktop session", got="no DISPLAY is set", next_command=_ELSE)
        return self

    def write(self, frame: Frame, result: People) -> None:
        """See `Sink.write`."""
        import cv2

        if self._closed:
            return
        try:
            if not self._shown:
                cv2.namedWindow(self.title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
            cv2.imshow(self.title, result.draw(max_width=self.max_width))
            key = cv2.waitKey(1) & 0xFF
            closed = self._shown and cv2.getWindowProperty(self.title, cv2.WND_PROP_VISIBLE) < 1
        except cv2.error as error:
            raise QanetError("cannot show a window", got=str(error).splitlines()[-1], next_command=_ELSE) from error
        self._shown = True
        if key in _QUIT_KEYS or closed:
            self._closed = True
            raise StopRun

    def __exit__(self, *_: object) -> None:
        import cv2

        if self._shown:
            with contextlib.suppress(cv2.error):  # the user closed it
                cv2.destroyWindow(self.title)
