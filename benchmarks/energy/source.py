"""What an energy meter is, whatever reads it; and one that adds up power readings."""

import threading
import time
from collections.abc import Callable
from typing import Protocol


class Unavailable(Exception):
    """There is no such sensor, or it cannot be read; the message says which and why."""


class EnergySource(Protocol):
    """A running total of energy; the difference of two readings is what was used between them."""

    name: str  # "RAPL package-0", ...

    def joules(self) -> float:
        """Joules since some start of its own; Unavailable when it stops answering."""
        ...

    def close(self) -> None:
        """Let go of what it holds."""
        ...


class PowerIntegral:
    """Adds up a power sensor's readings in a thread: watts times the time between them (trapezoids).

    Args:
        name: of the sensor.
        watts: one reading; may raise Unavailable, which `joules` hands on.
        period_s: between readings.
        clock: monotonic seconds.
    """

    def __init__(
        self, name: str, watts: Callable[[], float], period_s: float = 0.02, clock: Callable[[], float] = time.monotonic
    ):
        self.name, self._watts, self._period_s, self._clock = name, watts, period_s, clock
        self._lock = threading.Lock()
        self._total_j = 0.0
        self._last: tuple[float, float] | None = None  # seconds, watts
        self._error: Unavailable | None = None
        self._stop = threading.Event()
        self.sample()
        if self._error is not None:
            raise self._error
        self._thread = threading.Thread(target=self._work, name="qanet-power", daemon=True)
        self._thread.start()

    def sample(self) -> None:
        """Take one reading now."""
        try:
            watts = self._watts()
        except Unavailable as error:
            with self._lock:
                self._error = error
            return
        with self._lock:
            now = self._clock()
            if self._last is not None:
                self._total_j += (now - self._last[0]) * (watts + self._last[1]) / 2
            self._last = (now, watts)

    def joules(self) -> float:
        """See `EnergySource.joules`."""
        self.sample()
        with self._lock:
            if self._error is not None:
                raise self._error
            return self._total_j

    def close(self) -> None:
        """Stop the thread."""
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._stop.wait(self._period_s):
            self.sample()
