"""Keep what native decoders print away from stderr: OpenCV, its FFmpeg, and libjpeg and libpng behind it."""

import contextlib
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

_LOG_LEVEL = threading.Lock()  # OpenCV's log level is one for the process; several threads decode and encode
_COMPLAINT = re.compile(  # lines that libpng and libjpeg print themselves; whatever else arrives is not theirs
    r"libpng (error|warning): |Corrupt JPEG data: |Premature end of JPEG|Inconsistent progression sequence|"
    r"Invalid (progressive parameters|SOS parameters|crop request)|Warning: unknown JFIF|Unknown Adobe color transform|"
    r"Application transferred too many|Unsupported marker type"
)


@contextlib.contextmanager
def quiet_opencv() -> Iterator[None]:
    """Keep OpenCV and its FFmpeg from printing to stderr: the caller reports what went wrong in one line."""
    import cv2

    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # read when FFmpeg is first used
    # OpenCV 4.8 has the two functions in cv2 alone, OpenCV 5.0 in cv2.utils.logging alone.
    log: Any = cv2 if hasattr(cv2, "setLogLevel") else cv2.utils.logging
    with _LOG_LEVEL:
        before = log.getLogLevel()
        log.setLogLevel(0)
        try:
            yield
        finally:
            log.setLogLevel(before)


class _Stderr:
    """Diverts file descriptor 2 to a file during decoding; lines that are not a decoder's reach stderr after it.

    The libraries print by C's stderr, which Python cannot reach otherwise.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users, self._real, self._file, self._read = 0, -1, -1, 0

    def enter(self) -> None:
        """Divert; several threads may be inside at once."""
        with self._lock:
            self._users += 1
            if self._users > 1:
                return
            with contextlib.suppress(AttributeError, OSError, ValueError):
                sys.stderr.flush()
            try:
                self._real = os.dup(2)
            except OSError:  # closed: nothing can be printed
                return
            if self._file < 0:
                with tempfile.TemporaryFile() as file:
                    self._file = os.dup(file.fileno())
            os.dup2(self._file, 2)

    def leave(self) -> list[str]:
        """What the libraries said since the last call; the last one to leave puts stderr back."""
        with self._lock:
            self._users -= 1
            if self._real < 0:
                return []
            if self._users == 0:
                os.dup2(self._real, 2)
            size = os.fstat(self._file).st_size
            lines = os.pread(self._file, size - self._read, self._read).splitlines(keepends=True) if size else []
            self._read = size
            texts = [line.decode(errors="replace").strip() for line in lines]
            others = b"".join(line for line, text in zip(lines, texts) if not _COMPLAINT.match(text))
            if others:
                os.write(self._real, others)
            if self._users == 0:
                os.close(self._real)
                os.ftruncate(self._file, 0)
                os.lseek(self._file, 0, os.SEEK_SET)
                self._real, self._read = -1, 0
            return [text for text in texts if _COMPLAINT.match(text)]

    def restore_in_child(self) -> None:
        """A forked process must not keep the diversion of a thread that it does not have."""
        if self._real >= 0:
            os.dup2(self._real, 2)
        self.__init__()  # type: ignore[misc]


_STDERR = _Stderr()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_STDERR.restore_in_child)


@contextlib.contextmanager
def diverted_stderr() -> Iterator[list[str]]:
    """Keep the lines of libjpeg and libpng from stderr; the list holds them at the end.

    Threads that decode at the same time may find each other's lines.
    """
    lines: list[str] = []
    _STDERR.enter()
    try:
        yield lines
    finally:
        lines += _STDERR.leave()


@contextlib.contextmanager
def decoding_quietly() -> Iterator[list[str]]:
    """`quiet_opencv` and `diverted_stderr`, one thread at a time."""
    with quiet_opencv(), diverted_stderr() as lines:
        yield lines
