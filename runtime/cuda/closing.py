"""What holds something of a GPU and is used in a `with`: closed at its end, without hiding the error that ended it."""

from abc import ABC, abstractmethod
from types import TracebackType
from typing import TypeVar

from qanet.errors import QanetError

Self = TypeVar("Self", bound="Closing")


class Closing(ABC):
    """A base for `with`: leaving the block closes."""

    @abstractmethod
    def close(self) -> None:
        """Wait for what runs and give everything back; a second call does nothing."""

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except QanetError:
            if kind is None:  # else the error that ended the block is the one to tell
                raise
