"""What a decoder of video files is."""

from pathlib import Path
from typing import Protocol

from qanet.runtime.video.sources.base import Capture


class Decoder(Protocol):
    """A way to decode a file."""

    name: str

    def lack(self) -> str | None:
        """Why this machine has it not; None where it has."""
        ...

    def open(self, path: Path) -> Capture | None:
        """The file, opened; None where this decoder cannot."""
        ...
