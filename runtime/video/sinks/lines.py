"""Results as JSON lines."""

import json

from qanet.errors import QanetError
from qanet.results import People
from qanet.runtime.video.sinks.base import FileSink
from qanet.runtime.video.sources.base import Frame


class JsonLines(FileSink):
    """A line of JSON a frame."""

    def __enter__(self) -> "JsonLines":
        super().__enter__()
        self._file = self._stack.enter_context(self._aside.open("w"))
        return self

    def write(self, frame: Frame, result: People) -> None:
        """See `Sink.write`."""
        record = {"frame": frame.index, "name": frame.name, **result.to_json()}
        try:
            self._file.write(json.dumps(record, separators=(",", ":")) + "\n")
        except OSError as error:
            raise QanetError(
                f"could not write {self.path}", got=error.strerror, next_command="free some space"
            ) from error
