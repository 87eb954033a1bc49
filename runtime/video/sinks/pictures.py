"""A picture a frame: overlays, or label maps."""

from pathlib import Path
from typing import Protocol

from qanet.errors import QanetError
from qanet.files import write_bytes
from qanet.results import People
from qanet.runtime.video.sinks.png import indexed_png
from qanet.runtime.video.sources.base import Frame


class Encode(Protocol):
    """A result as the bytes of a picture file."""

    def __call__(self, result: People, suffix: str, /) -> bytes: ...


def overlay(result: People, suffix: str) -> bytes:
    """The image with parts, boxes and scores, in any format of OpenCV's."""
    import cv2

    ok, data = cv2.imencode(suffix, result.draw())
    if not ok:
        raise QanetError(f"cannot encode a picture as {suffix}", expected="a format this OpenCV writes", got=suffix)
    return data.tobytes()


def label_map(result: People, suffix: str) -> bytes:
    """A PNG whose pixels are class ids, with the label set's colours for its palette."""
    return indexed_png(result.labels, result.label_set.colours_rgb)


class Pictures:
    """PNGs in a folder, one a frame, or one picture for one image.

    Args:
        path: the folder, or, where `single`, the file.
        single: for one image.
        encode: `overlay` or `label_map`.
    """

    def __init__(self, path: Path, single: bool, encode: Encode = overlay):
        self.path, self.single, self._encode = path, single, encode
        self._written: set[Path] = set()

    def __enter__(self) -> "Pictures":
        folder = self.path.parent if self.single else self.path
        if folder.exists() and not folder.is_dir():
            raise QanetError(f"cannot write {self.path}", expected="a folder", got="a file of that name")
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def write(self, frame: Frame, result: People) -> None:
        """See `Sink.write`."""
        number = f"{frame.index:06d}" if frame.name == str(frame.index) else Path(frame.name).stem
        target = self.path if self.single else self.path / f"{number}.png"
        if target in self._written:  # a.jpg and a.png in one folder
            target = target.with_stem(f"{number}-{frame.index}")
        self._written.add(target)
        write_bytes(target, self._encode(result, target.suffix))
