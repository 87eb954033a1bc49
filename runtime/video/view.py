"""What is shown of a result: some parts only, an overlay on people only, nobody to be recognised."""

import contextlib
import difflib
from dataclasses import dataclass, replace
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from qanet.errors import QanetError
from qanet.labels import LabelSet
from qanet.results import People, Person
from qanet.runtime.video.privacy import Privacy
from qanet.runtime.video.sinks.base import Sink
from qanet.runtime.video.sources.base import Frame


def part_ids(names: tuple[str, ...], labels: LabelSet) -> tuple[int, ...]:
    """The class ids of parts; QanetError with the nearest name where the set has no such part."""
    known = labels.classes[1:]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1, 0.5)
            hint = f", did you mean {near[0]!r}?" if near else ""
            raise QanetError(f"no part {name!r} in {labels.name}{hint}", expected=", ".join(known), got=name)
    return tuple(labels.classes.index(name) for name in names)


def only_parts(result: People, ids: tuple[int, ...]) -> People:
    """The result without the labels and scores of all other parts; the people and their own scores stay."""
    keep = np.zeros(256, bool)
    keep[list(ids)] = True
    parts = keep[1 : result.label_set.num_classes]

    def of(person: Person) -> Person:
        return replace(
            person,
            labels=np.where(keep[person.labels], person.labels, np.uint8(0)),
            part_scores=person.part_scores * parts,
            part_quality=person.part_quality * parts,
        )

    return replace(result, people=[of(person) for person in result])


@dataclass
class OnPeople(People):
    """A result that draws on its people's pixels and leaves the background as it is: no boxes, no text, no legend."""

    def draw(
        self, alpha: float = 0.55, boxes: bool = True, legend: bool = True, max_width: int = 0
    ) -> NDArray[np.uint8]:
        """See `ParsingResult.draw`."""
        return super().draw(alpha, boxes=False, legend=False, max_width=max_width)


class View:
    """Prepares each result once for all sinks of a stream: none of them sees more than it shows.

    Args:
        sinks: whom to hand it to.
        privacy: hides faces or people in the image, by all of their labels; None: nobody is hidden.
        only: class ids of the parts that are shown; empty: all.
        keep_background: see `OnPeople`.
    """

    def __init__(
        self,
        sinks: list[Sink],
        privacy: Privacy | None = None,
        only: tuple[int, ...] = (),
        keep_background: bool = False,
    ):
        self._sinks, self._privacy, self._only, self._keep = sinks, privacy, only, keep_background
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "View":
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
        if self._only:
            result = only_parts(result, self._only)
        if self._keep:
            result = OnPeople(result.image, result.label_set, result.people)
        for sink in self._sinks:
            sink.write(frame, result)
