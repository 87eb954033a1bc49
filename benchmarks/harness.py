"""Interleaved timing: every round calls every target once, so that a slow minute of the machine hits all alike.

A target is warmed up until its latency stops moving (bounded), then rounds A B C, C A B, ... run for a duration or a
count. Each round has a new random order: in a fixed one, a scheduler whose time slices keep step with the rounds
interrupts the same target again and again. A target that raises is left out, the others go on. Durations are of the
monotonic clock; where it steps back all the same, the sample is dropped and counted.

The anchor is a target of fixed work that runs no code of the project: when it is slower in one result than in another,
the machine was, and a comparison of the two has to say so.
"""

import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qanet.benchmarks.schema import Latency

try:
    import resource
except ImportError:  # not a Unix
    resource = None  # type: ignore[assignment]


_ORDER_SEED = 0  # the same targets meet the same orders
_ORDERS_AT_ONCE = 64
PERCENTILES = (50, 90, 95, 99)
ANCHOR_NAME = "anchor (fixed work)"
_SIDE = 192
_COPIED = 1 << 20  # bytes: beyond an L2 cache on most machines
Clock = Callable[[], int]  # nanoseconds


@dataclass(frozen=True)
class Target:
    """Something to time.

    Attributes:
        name: unique among the targets.
        call: called with the round's number, so that all targets of a round work on the same sample.
        kind: "engine", "tail", "parser", "pipeline", "baseline", "anchor" or "null".
        precision: "fp32", "fp16", "int8"; "" where none is involved.
        runtime: "openvino", ...; "" where none is involved.
        batch: people per call (frames per call for "pipeline"); a mean where it varies.
        started: called once when the timed rounds begin, to drop what the warm-up left behind.
        variant: the label of the model, precision, tail and device it belongs to; "" for none.
    """

    name: str
    call: Callable[[int], object]
    kind: str
    precision: str = ""
    runtime: str = ""
    batch: float = 1.0
    started: Callable[[], None] = lambda: None
    variant: str = ""


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


@dataclass(slots=True)
class Measurement:
    """The timed calls of a target, milliseconds, and the error that ended them."""

    target: Target
    samples_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)  # processor time of the same calls, of all threads together
    preempted: int = 0  # calls during which the system gave a processor to another process
    warmup_calls: int = 0
    warmup_stable: bool = False
    error: str | None = None
    first_call_ms: float | None = None  # of the warm-up: what is allocated and compiled on first use is in it


@dataclass(slots=True)
class Session:
    """All targets' measurements and how the timing went.

    Attributes:
        rounds: completed.
        seconds: of the timed rounds.
        clock_steps: samples dropped because the clock went backwards; pairing by round is lost where there are any.
        wall_shift_s: how far the wall clock moved against the monotonic one meanwhile, None where nothing was timed.
    """

    measurements: list[Measurement]
    rounds: int = 0
    seconds: float = 0.0
    interrupted: bool = False
    clock_steps: int = 0
    wall_shift_s: float | None = None


def run(
    targets: Sequence[Target],
    duration_s: float | None = None,
    rounds: int | None = None,
    warm_up: WarmUp | None = None,
    clock: Clock = time.perf_counter_ns,
    wall: Clock = time.time_ns,
    cpu: Clock = time.process_time_ns,
    switches: Callable[[], int] | None = None,
) -> Session:
    """Warm up every target, then time rounds over all of them.

    Args:
        duration_s: stop after the round in which this many seconds of timing have passed.
        rounds: stop after so many rounds; with `duration_s`, whichever comes first.
        clock: monotonic nanoseconds; all durations are its.
        wall: nanoseconds of the calendar; only to find out whether it was set meanwhile.
        cpu: nanoseconds of processor time of this process; what others take from it is not in them.
        switches: involuntary context switches of this process so far; None asks the system.
    Returns:
        The session; Ctrl-C ends it early with `interrupted` set and what was measured kept.
    """
    if duration_s is None and rounds is None:
        raise ValueError("give duration_s, rounds, or both")
    session = Session([Measurement(target) for target in targets])
    offset = None
    turns = _Turns(session.measurements)
    try:
        for measurement in session.measurements:
            _warm(session, measurement, warm_up or WarmUp(), clock)
        for measurement in session.measurements:
            measurement.target.started()
        offset = wall() - clock()
        while rounds is None or session.rounds < rounds:
            order = turns.next()
            if not order:
                break
            begin = clock()
            if not _round(session, order, clock, cpu, switches or involuntary_switches):
                turns.forget()
            session.seconds += max(clock() - begin, 0) / 1e9  # by the round, so that a step back cannot make it endless
            session.rounds += 1
            if duration_s is not None and session.seconds >= duration_s:
                break
    except KeyboardInterrupt:
        session.interrupted = True
    if offset is not None:
        session.wall_shift_s = (wall() - clock() - offset) / 1e9
    return session


def _warm(session: Session, measurement: Measurement, rule: WarmUp, clock: Clock) -> None:
    samples_ms: list[float] = []
    spent_ms = 0.0
    while measurement.warmup_calls < rule.max_calls and spent_ms < rule.max_s * 1e3:
        duration_ms = _timed_call(session, measurement, len(samples_ms), clock)
        if measurement.error is not None:
            return
        measurement.warmup_calls += 1
        if duration_ms is None:
            continue
        if not samples_ms:
            measurement.first_call_ms = duration_ms
        samples_ms.append(duration_ms)
        spent_ms += duration_ms
        if rule.is_stable(samples_ms):
            measurement.warmup_stable = True
            return


class _Turns:
    """Whose turn it is, round by round.

    Orders are drawn many at once: a call has just emptied the caches, and a shuffle then takes 20 us instead of one.
    """

    def __init__(self, measurements: list[Measurement]):
        self._measurements = measurements
        self._random = random.Random(_ORDER_SEED)
        self._drawn: deque[list[Measurement]] = deque()

    def next(self) -> list[Measurement]:
        """The working targets in the order of the next round; empty when all but null and anchor have failed."""
        if not self._drawn:
            alive = [m for m in self._measurements if m.error is None]
            wanted = [m for m in self._measurements if m.target.kind not in ("null", "anchor")] or self._measurements
            if all(m.error is not None for m in wanted):
                return []
            self._drawn.extend(self._random.sample(alive, len(alive)) for _ in range(_ORDERS_AT_ONCE))
        return self._drawn.popleft()

    def forget(self) -> None:
        """A target has failed: draw new orders without it."""
        self._drawn.clear()


def involuntary_switches() -> int:
    """How often the system took a processor away from this process; 0 where it does not count."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw if resource else 0


def _round(session: Session, order: list[Measurement], clock: Clock, cpu: Clock, switches: Callable[[], int]) -> bool:
    """One call of every target; False when one has failed."""
    all_well = True
    seen = switches()  # asked once per call: it costs more than all other bookkeeping
    for measurement in order:
        cpu_begin = cpu()
        duration_ms = _timed_call(session, measurement, session.rounds, clock)
        if duration_ms is not None:
            measurement.cpu_ms.append((cpu() - cpu_begin) / 1e6)
            measurement.samples_ms.append(duration_ms)
        before, seen = seen, switches()
        measurement.preempted += duration_ms is not None and seen > before
        all_well = all_well and measurement.error is None
    return all_well


def _timed_call(session: Session, measurement: Measurement, number: int, clock: Clock) -> float | None:
    """Milliseconds of one call; None with the error noted when it raises, None with the step counted when the clock
    went backwards."""
    call = measurement.target.call
    begin = clock()
    try:
        call(number)
    except Exception as error:  # the other targets go on, and the table has the error
        measurement.error = f"{type(error).__name__}: {error}"
        return None
    duration_ms = (clock() - begin) / 1e6
    if duration_ms < 0:
        session.clock_steps += 1
        return None
    return duration_ms


def null_target() -> Target:
    """A call that does nothing: what the harness adds to every sample."""
    return Target("null (harness itself)", lambda number: None, "null")


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


def summarize(samples_ms: Sequence[float]) -> dict[str, Any]:
    """Percentiles (linear interpolation), extremes, mean and spread of durations.

    Args:
        samples_ms: durations in milliseconds.
    Returns:
        p50, p90, p95, p99, min, max, mean, mad (median absolute deviation from the median), all in milliseconds,
        and n; only n for no samples.
    """
    if not len(samples_ms):
        return {"n": 0}
    values = np.asarray(samples_ms, np.float64)
    points = np.percentile(values, PERCENTILES)
    summary = {f"p{q}": float(v) for q, v in zip(PERCENTILES, points)}
    summary |= {"min": float(values.min()), "max": float(values.max()), "mean": float(values.mean())}
    summary["mad"] = float(np.median(np.abs(values - np.median(values))))
    return {key: round(value, 6) for key, value in summary.items()} | {"n": len(values)}


def latency_of(samples_ms: Sequence[float]) -> Latency:
    """The figures of `summarize` as a record."""
    return Latency(**summarize(samples_ms))


def per_second(samples_ms: Sequence[float], items_per_call: float = 1.0) -> float | None:
    """Items per second when calls follow each other without a gap; None for no samples."""
    total = float(np.sum(samples_ms)) if len(samples_ms) else 0.0
    return round(len(samples_ms) * items_per_call / total * 1e3, 3) if total > 0 else None
