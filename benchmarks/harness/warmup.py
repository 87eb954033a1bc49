"""When a target counts as warm."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class WarmUp:
    """When a target counts as warm: two successive windows of calls whose medians differ by less than `tolerance`."""

    window: int = 4
    tolerance: float = 0.05
    max_calls: int = 40
    max_s: float = 3.0

    def is_stable(self, samples_ms: Sequence[float]) -> bool:
        """Whether the last two windows agree."""
        if len(samples_ms) < 2 * self.window:
            return False
        before = float(np.median(samples_ms[-2 * self.window : -self.window]))
        now = float(np.median(samples_ms[-self.window :]))
        return abs(now - before) <= self.tolerance * max(before, now)
