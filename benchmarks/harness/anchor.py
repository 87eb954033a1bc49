"""The anchor: a fixed piece of work of this machine's own, timed in every round.

It runs no code of the project, so when it is slower in one result than in another, the machine was, and a comparison of
the two has to say so.
"""

import numpy as np

from qanet.benchmarks.harness.target import Target

ANCHOR_NAME = "anchor (fixed work)"
_SIDE = 192
_COPIED = 1 << 20  # bytes: beyond an L2 cache on most machines


def anchor_target() -> Target:
    """One float32 product of 192x192 matrices and one copy of a mebibyte; always the same numbers."""
    rng = np.random.default_rng(0)
    left, right = (rng.standard_normal((_SIDE, _SIDE)).astype(np.float32) for _ in range(2))
    product = np.empty((_SIDE, _SIDE), np.float32)
    source, target = np.ones(_COPIED, np.uint8), np.zeros(_COPIED, np.uint8)

    def call(number: int) -> None:
        np.matmul(left, right, out=product)
        np.copyto(target, source)

    return Target(ANCHOR_NAME, call, "anchor")
