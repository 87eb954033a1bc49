"""An address as the user writes it -> its source."""

from pathlib import Path

from qanet.errors import QanetError
from qanet.images import IMAGE_SUFFIXES
from qanet.runtime.video.sources.addresses import is_live, open_live
from qanet.runtime.video.sources.base import DEFAULT_FPS, Source
from qanet.runtime.video.sources.files import ImageFiles, VideoFile
from qanet.runtime.video.sources.pipe import open_stdin

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
