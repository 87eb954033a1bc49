"""What a sink of results is, and files that appear whole or not at all."""

import contextlib
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from qanet.errors import QanetError
from qanet.files import written_aside
from qanet.results import People
from qanet.runtime.video.sources.base import Frame


class StopRun(Exception):
    """Whoever looks at the results wants no more of them; what was written is kept."""


class Sink(Protocol):
    """Takes results in order; entered once, closed once."""

    def __enter__(self) -> Any: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def write(self, frame: Frame, result: People) -> None:
        """One frame's result."""
        ...


class FileSink:
    """Writes aside; the file gets its name when the run ends, by its end or by Ctrl-C, and vanishes on an error."""

    def __init__(self, path: Path):
        self.path = path
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "FileSink":
        if self.path.is_dir():
            raise QanetError(f"cannot write {self.path}", expected="a file's name", got="a folder of that name")
        self._aside = self._stack.enter_context(written_aside(self.path))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)
