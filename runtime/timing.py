"""How long each stage of a frame took, in milliseconds, for the report and the progress bar."""

import contextlib
import time
from collections.abc import Iterator


class StageTimes:
    """Collects durations by stage; one instance a thread of work."""

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
        """One sample of a stage that was timed elsewhere."""
        self.samples_ms.setdefault(name, []).append(duration_ms)
