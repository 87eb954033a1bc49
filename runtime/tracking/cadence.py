"""When the detector should look again: seldom while nothing surprising happens, at once when something does."""

MAX_EVERY = 3  # a newcomer waits this many frames at most


class Cadence:
    """Frames between detections.

    Args:
        every: a fixed number; None adapts it between 1 and MAX_EVERY: one more after each detection that told
            nothing new, back to 1 after one that did.
    """

    def __init__(self, every: int | None):
        self.every = every or 1
        self._adaptive = every is None
        self._last: int | None = None
        self._urgent = False

    def wants(self, index: int) -> bool:
        """Whether to detect on this frame; asked once a frame, in order."""
        due = self._last is None or self._urgent or index - self._last >= self.every
        if due:
            self._last, self._urgent = index, False
        return due

    def learn(self, surprised: bool) -> None:
        """What a detection told: somebody new, somebody gone, somebody elsewhere; or nothing."""
        if self._adaptive:
            self.every = 1 if surprised else min(self.every + 1, MAX_EVERY)

    def hurry(self) -> None:
        """Somebody who was carried is no longer trusted: look at the next frame."""
        self._urgent = self._adaptive
