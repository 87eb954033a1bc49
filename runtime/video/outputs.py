"""Outputs of a stream: the sinks that a command line names, and the filter in front of them."""

import contextlib
import difflib
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from qanet.errors import QanetError
from qanet.images import IMAGE_SUFFIXES
from qanet.labels import LabelSet
from qanet.paths import local_path
from qanet.results import People, Person
from qanet.runtime.video.encode import CODECS, RtspPush, VideoFileSink
from qanet.runtime.video.frame import Frame
from qanet.runtime.video.privacy import Privacy
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
    """The sinks of a stream.

    Args:
        output: of the overlay: a video, a folder, a picture, display:// or rtsp://; None: no overlay.
        results: a file of JSON lines.
        source_kind: kind of the input, see `Source`.
        fps: frames per second of the overlay.
        max_width: shrink the overlay video to this width.
        labels: a folder of label PNGs, or a .png for one image.
        title: of a window.
    Raises:
        QanetError: an output that does not fit the input.
    """
    sinks: list[Sink] = []
    if results:
        sinks.append(JsonLines(Path(results)))
    if labels:
        sinks.append(_label_pictures(local_path(labels), source_kind))
    if output:
        sinks.append(_overlay(output, source_kind, fps, max_width, title))
    return sinks


def is_file(output: str) -> bool:
    """Whether an output is a path, not a window or a stream."""
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
    path = local_path(output)
    suffix = path.suffix.lower()
    if suffix in CODECS:
        return VideoFileSink(path, fps, max_width)
    if suffix in IMAGE_SUFFIXES:
        if source_kind != "image":
            raise QanetError(
                f"{output} holds one picture, the input is a {source_kind}",
                expected="a folder or an .mp4 file",
                got=suffix,
                next_command=f"qanet parse INPUT {path.with_suffix('.mp4')}",
            )
        return Pictures(path, single=True)
    if suffix == "" or path.is_dir():
        return Pictures(path, single=False)
    known = ", ".join((*CODECS, *IMAGE_SUFFIXES))
    raise QanetError(
        f"unknown output format {output}", expected=f"display://, rtsp://, a folder or {known}", got=suffix
    )


def part_ids(names: tuple[str, ...], labels: LabelSet) -> tuple[int, ...]:
    """Class ids of parts by name; QanetError with the closest name for an unknown part."""
    known = labels.classes[1:]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1, 0.5)
            hint = f", did you mean {near[0]!r}?" if near else ""
            raise QanetError(f"no part {name!r} in {labels.name}{hint}", expected=", ".join(known), got=name)
    return tuple(labels.classes.index(name) for name in names)


def only_parts(result: People, ids: tuple[int, ...]) -> People:
    """The result with labels and scores of these parts only; people and their scores stay."""
    keep = np.zeros(256, bool)
    keep[list(ids)] = True
    parts = keep[1 : result.label_set.num_classes]

    def of(person: Person) -> Person:
        return replace(
            person,
            labels=np.where(keep[person.labels], person.labels, np.uint8(0)),
            part_scores=person.part_scores * parts,
            part_quality=person.part_quality * parts,
            expected_part_iou=None if person.expected_part_iou is None else person.expected_part_iou * parts,
        )

    return replace(result, people=[of(person) for person in result])


@dataclass
class OnPeople(People):
    """A result whose overlay changes only the pixels of people: no boxes, text or legend."""

    def draw(
        self, alpha: float = 0.55, boxes: bool = True, legend: bool = True, max_width: int = 0
    ) -> NDArray[np.uint8]:
        """See `People.draw`."""
        return super().draw(alpha, boxes=False, legend=False, max_width=max_width)


class FilteredSink:
    """Filters each result once for all sinks of a stream, so that no sink receives hidden content.

    Args:
        sinks: receive the filtered results.
        privacy: hides faces or people in the image, using all labels; None: hides nothing.
        only: class ids of the parts to keep; empty: all.
        keep_background: see `OnPeople`.
        min_quality: people of less are left out after `privacy`, which hides them all the same; see `People.at_least`.
    """

    def __init__(
        self,
        sinks: list[Sink],
        privacy: Privacy | None = None,
        only: tuple[int, ...] = (),
        keep_background: bool = False,
        min_quality: float = 0.0,
    ):
        self._min_quality = min_quality
        self._sinks, self._privacy, self._only, self._keep = sinks, privacy, only, keep_background
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "FilteredSink":
        with contextlib.ExitStack() as opened:
            for sink in self._sinks:
                opened.enter_context(sink)
            self._stack = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def write(self, frame: Frame, result: People) -> None:
        """See `Sink.write`."""
        if self._privacy is not None:
            result = self._privacy(result)
            frame = replace(frame, image=result.image)
        if self._min_quality:
            result = result.at_least(self._min_quality)
        if self._only:
            result = only_parts(result, self._only)
        if self._keep:
            result = OnPeople(result.image, result.label_set, result.people)
        for sink in self._sinks:
            sink.write(frame, result)
