"""Interleaved timing: every round calls every target once, so that a slow minute of the machine hits all alike.

A target is warmed up until its latency stops moving (bounded), then rounds A B C A B C run for a duration or a
count. What raises is out, the rest goes on. The null target does nothing: its figures are the harness's own.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

Clock = Callable[[], int]  # monotonic nanoseconds


@dataclass(frozen=True)
class Target:
    """Something to time.

    Attributes:
        name: unique among the targets.
        call: called with the round's number, so that all targets of a round work on the same sample.
        kind: "engine", "tail", "parser" or "null".
        precision: "fp32", "fp16", "int8"; "" for the null target.
        runtime: "openvino", ...; "" where none is involved.
        batch: people a call; a mean where it varies.
        started: called once when the timed rounds begin, to drop what the warm-up left behind.
    """

    name: str
    call: Callable[[int], object]
    kind: str
    precision: str = ""
    runtime: str = ""
    batch: float = 1.0
    started: Callable[[], None] = lambda: None


@dataclass
class Measurement:
    """What came of a target: durations in milliseconds, and why there are none or no more."""

    target: Target
    samples_ms: list[float] = field(default_factory=list)
    warmup_calls: int = 0
    warmup_stable: bool = False
    error: str | None = None


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


@dataclass
class Session:
    """All targets' measurements and how the timing went."""

    measurements: list[Measurement]
    rounds: int = 0  # completed
    seconds: float = 0.0  # of the timed rounds
    interrupted: bool = False


def null_target() -> Target:
    """A call that does nothing: what the harness adds to every sample."""
    return Target("null (harness itself)", lambda number: None, "null")


def run(
    targets: Sequence[Target], duration_s: float | None = None, rounds: int | None = None,
    warm_up: WarmUp | None = None, clock: Clock = time.perf_counter_ns,
) -> Session:  # fmt: skip
    """Warm up every target, then time rounds over all of them.

    Args:
        duration_s: stop after the round in which this many seconds of timing have passed.
        rounds: stop after so many rounds; with `duration_s`, whichever comes first.
        clock: monotonic nanoseconds.
    Returns:
        The session; Ctrl-C ends it early with `interrupted` set and what was measured kept.
    """
    if duration_s is None and rounds is None:
        raise ValueError("give duration_s, rounds, or both")
    session = Session([Measurement(target) for target in targets])
    started = None
    try:
        for measurement in session.measurements:
            _warm(measurement, warm_up or WarmUp(), clock)
        for measurement in session.measurements:
            measurement.target.started()
        started = clock()
        while rounds is None or session.rounds < rounds:
            if not _round(session, clock):
                break
            session.rounds += 1
            if duration_s is not None and (clock() - started) / 1e9 >= duration_s:
                break
    except KeyboardInterrupt:
        session.interrupted = True
    if started is not None:
        session.seconds = (clock() - started) / 1e9
    return session


def _warm(measurement: Measurement, rule: WarmUp, clock: Clock) -> None:
    samples_ms: list[float] = []
    begin = clock()
    while len(samples_ms) < rule.max_calls and (clock() - begin) / 1e9 < rule.max_s:
        duration_ms = _timed_call(measurement, len(samples_ms), clock)
        if duration_ms is None:
            return
        samples_ms.append(duration_ms)
        measurement.warmup_calls = len(samples_ms)
        if rule.is_stable(samples_ms):
            measurement.warmup_stable = True
            return


def _round(session: Session, clock: Clock) -> bool:
    """One call of every target that still works; False when none does."""
    alive = [m for m in session.measurements if m.error is None]
    for measurement in alive:
        duration_ms = _timed_call(measurement, session.rounds, clock)
        if duration_ms is not None:
            measurement.samples_ms.append(duration_ms)
    return any(m.target.kind != "null" for m in alive)


def _timed_call(measurement: Measurement, number: int, clock: Clock) -> float | None:
    """Milliseconds of one call; None, with the error noted, when it raises."""
    call = measurement.target.call
    begin = clock()
    try:
        call(number)
    except Exception as error:  # whatever it is, the other targets go on and the table says so
        measurement.error = f"{type(error).__name__}: {error}"
        return None
    return (clock() - begin) / 1e6
