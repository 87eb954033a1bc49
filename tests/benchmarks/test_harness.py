"""Percentiles on known samples, the order of the rounds, warm-up, and what happens when things go wrong."""

import numpy as np
import pytest

from qanet.benchmarks.harness import Session, Target, WarmUp, null_target, run
from qanet.benchmarks.statistics import per_second, summarize

NO_WARM_UP = WarmUp(max_calls=0)


def test_percentiles_of_known_samples():
    summary = summarize([float(v) for v in range(1, 102)])  # 1 .. 101: rank q of 100 is 1 + q
    assert (summary["p50"], summary["p90"], summary["p95"], summary["p99"]) == (51, 91, 96, 100)
    assert (summary["min"], summary["max"], summary["mean"], summary["n"]) == (1, 101, 51, 101)
    assert summary["mad"] == 25  # distances from 51 are 0, 1, 1, ..., 50, 50


def test_mad_ignores_an_outlier_and_the_order():
    assert summarize([1000.0, 3.0, 1.0, 2.0, 4.0])["mad"] == 1.0


def test_one_sample_and_none():
    assert summarize([2.5]) == {
        "p50": 2.5, "p90": 2.5, "p95": 2.5, "p99": 2.5, "min": 2.5, "max": 2.5, "mean": 2.5, "mad": 0.0, "n": 1,
    }  # fmt: skip
    assert summarize([]) == {"n": 0}
    assert per_second([]) is None


def test_throughput_counts_people():
    assert per_second([10.0, 30.0], items_per_call=3) == pytest.approx(150.0)  # 6 people in 40 ms


def target(name, clock, log, durations_ms=(1.0,), raises_at=None, error=RuntimeError):
    """A target that takes the durations in turn and may raise at one of its calls."""
    calls = []

    def call(number):
        log.append((name, number))
        calls.append(number)
        if raises_at is not None and len(calls) == raises_at:
            raise error(f"{name} broke")
        clock.pass_ms(durations_ms[(len(calls) - 1) % len(durations_ms)])

    return Target(name, call, "engine", "fp32")


def test_rounds_interleave_and_share_the_sample_number(clock):
    log = []
    session = run([target(n, clock, log) for n in "ABC"], rounds=3, warm_up=NO_WARM_UP, clock=clock)
    assert log == [(name, number) for number in range(3) for name in "ABC"]
    assert session.rounds == 3 and not session.interrupted


def test_samples_are_what_the_clock_says(clock):
    session = run([target("A", clock, [], (2.0, 5.0))], rounds=4, warm_up=NO_WARM_UP, clock=clock)
    assert session.measurements[0].samples_ms == [2.0, 5.0, 2.0, 5.0]
    assert session.seconds == pytest.approx(0.014)


def test_duration_ends_with_a_whole_round(clock):
    targets = [target("A", clock, [], (40.0,)), target("B", clock, [], (20.0,))]
    session = run(targets, duration_s=0.1, warm_up=NO_WARM_UP, clock=clock)
    assert [len(m.samples_ms) for m in session.measurements] == [2, 2]  # 60 ms a round, stopped after 120 ms


def test_a_target_that_raises_in_the_middle_is_out_and_the_rest_goes_on(clock):
    targets = [target("A", clock, []), target("B", clock, [], raises_at=3), target("C", clock, [])]
    session = run(targets, rounds=6, warm_up=NO_WARM_UP, clock=clock)
    a, b, c = session.measurements
    assert (len(a.samples_ms), len(b.samples_ms), len(c.samples_ms)) == (6, 2, 6)
    assert b.error == "RuntimeError: B broke" and a.error is None and c.error is None


def test_nothing_left_to_time_ends_the_run(clock):
    session = run([null_target(), target("A", clock, [], raises_at=2)], duration_s=1e9, warm_up=NO_WARM_UP, clock=clock)
    assert session.rounds <= 3 and session.measurements[1].error == "RuntimeError: A broke"


def test_a_target_that_raises_while_warming_up_is_not_timed(clock):
    log = []
    session = run([target("A", clock, log, raises_at=1), target("B", clock, [])], rounds=2, clock=clock)
    assert len(log) == 1 and session.measurements[0].samples_ms == []
    assert len(session.measurements[1].samples_ms) == 2


def test_interrupt_keeps_what_was_measured(clock):
    targets = [target("A", clock, []), target("B", clock, [], raises_at=3, error=KeyboardInterrupt)]
    session = run(targets, rounds=10, warm_up=NO_WARM_UP, clock=clock)
    assert session.interrupted and session.rounds == 2
    assert [len(m.samples_ms) for m in session.measurements] == [3, 2]


def test_interrupt_while_warming_up_reports_nothing_measured(clock):
    session = run([target("A", clock, [], raises_at=1, error=KeyboardInterrupt)], rounds=10, clock=clock)
    assert isinstance(session, Session) and session.interrupted and session.measurements[0].samples_ms == []


def test_warm_up_ends_when_the_latency_stands_still(clock):
    falling = target("A", clock, [], (64.0, 32.0, 16.0, 8.0, 4.0, *[2.0] * 100))
    session = run([falling], rounds=1, warm_up=WarmUp(window=4), clock=clock)
    measured = session.measurements[0]
    assert measured.warmup_stable and measured.warmup_calls == 12  # two windows medians 3 and 2, then 2 and 2
    assert measured.samples_ms == [2.0]


@pytest.mark.parametrize(
    ("rule", "calls"),
    [(WarmUp(window=2, max_calls=10, max_s=1e9), 10), (WarmUp(window=2, max_calls=1000, max_s=0.1), 7)],
    ids=["by calls", "by seconds"],
)
def test_warm_up_is_bounded(clock, rule, calls):
    growing = target("A", clock, [], tuple(2.0**k for k in range(20)))  # never stands still
    measured = run([growing], rounds=1, warm_up=rule, clock=clock).measurements[0]
    assert not measured.warmup_stable
    assert measured.warmup_calls == calls  # 1 + 2 + ... + 64 ms is the first sum beyond 0.1 s


def test_started_is_called_after_the_warm_up(clock):
    log = []
    timed = target("A", clock, log)
    timed = Target("A", timed.call, "parser", started=lambda: log.append("started"))
    run([timed], rounds=1, warm_up=WarmUp(window=1, max_calls=5), clock=clock)
    assert log.count("started") == 1 and log.index("started") == len(log) - 2


def test_null_target_costs_microseconds():
    session = run([null_target()], rounds=200)
    assert 0 <= np.median(session.measurements[0].samples_ms) < 0.5


def test_neither_duration_nor_rounds_is_a_mistake_of_the_caller(clock):
    with pytest.raises(ValueError, match="duration_s, rounds"):
        run([null_target()], clock=clock)
