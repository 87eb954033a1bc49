"""Addresses as the user writes them -> the sinks of a stream."""

from pathlib import Path

from qanet.errors import QanetError
from qanet.images import IMAGE_SUFFIXES
from qanet.runtime.video.encode import CODECS, RtspPush, VideoFileSink
from qanet.runtime.video.sinks import Display, JsonLines, Pictures, Sink, label_map

DISPLAY, RTSP = "display://", ("rtsp://", "rtsps://")


def open_sinks(
    output: str | None,
    results: str | None,
    source_kind: str,
    fps: float,
    max_width: int = 0,
    labels: str | None = None,
    title: str = "qanet parse",
) -> list[Sink]:
    """The sinks a command line asks for.

    Args:
        output: where the overlay goes: a video, a folder, a picture, display:// or rtsp://; None: nowhere.
        results: a file of JSON lines.
        source_kind: what is parsed.
        fps: of the overlay.
        max_width: shrink the overlay video to this width.
        labels: a folder of label PNGs; a .png where one image is parsed.
        title: of a window.
    Raises:
        QanetError: an output whose kind does not fit the input.
    """
    sinks: list[Sink] = []
    if results:
        sinks.append(JsonLines(Path(results)))
    if labels:
        sinks.append(_label_pictures(Path(labels), source_kind))
    if output:
        sinks.append(_overlay(output, source_kind, fps, max_width, title))
    return sinks


def is_file(output: str) -> bool:
    """Whether an output is a path: neither a window nor a stream."""
    return not output.startswith((DISPLAY, *RTSP))


def _label_pictures(path: Path, source_kind: str) -> Sink:
    single = path.suffix.lower() == ".png"
    if single and source_kind != "image":
        raise QanetError(
            f"{path} holds one picture, the input is a {source_kind}",
            expected="a folder for the labels",
            got=path.name,
            next_command=f"qanet parse INPUT --labels {path.with_suffix('')}",
        )
    return Pictures(path, single, label_map)


def _overlay(output: str, source_kind: str, fps: float, max_width: int, title: str) -> Sink:
    if output.startswith(DISPLAY):
        return Display(title, max_width)
    if output.startswith(RTSP):
        return RtspPush(output, fps, max_width)
    path = Path(output.removeprefix("file://"))
    suffix = path.suffix.lower()
    if suffix in CODECS:
        return VideoFileSink(path, fps, max_width)
    if suffix in IMAGE_SUFFIXES:
        if source_kind != "image":
            raise QanetError(
                f"{output} holds one picture, the input is a {source_kind}",
                expected="a folder or a .webm file",
                got=suffix,
                next_command=f"qanet parse INPUT {path.with_suffix('.webm')}",
            )
        return Pictures(path, single=True)
    if suffix == "" or path.is_dir():
        return Pictures(path, single=False)
    known = ", ".join((*CODECS, *IMAGE_SUFFIXES))
    raise QanetError(
        f"unknown output format {output}", expected=f"display://, rtsp://, a folder or {known}", got=suffix
    )
