"""Durations of the stages of a frame, in milliseconds."""

import contextlib
import time
from collections.abc import Iterator


class StageTimes:
    """Collects durations by stage."""

    def __init__(self) -> None:
        self.samples_ms: dict[str, list[float]] = {}

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the body as one sample of `name`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, (time.perf_counter() - start) * 1e3)

    def add(self, name: str, duration_ms: float) -> None:
        """Add a sample of a stage that was timed elsewhere."""
        self.samples_ms.setdefault(name, []).append(duration_ms)
