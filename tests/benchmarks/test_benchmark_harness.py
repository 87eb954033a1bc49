"""Percentiles on known samples, the order of the rounds, warm-up, and what happens when things go wrong."""

import numpy as np
import pytest

from qanet.benchmarks.costs import PeakMemory, cold_start, measure_extra
from qanet.benchmarks.harness import Session, Target, WarmUp, anchor_target, null_target, per_second, run, summarize

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
        "p50": 2.5,
        "p90": 2.5,
        "p95": 2.5,
        "p99": 2.5,
        "min": 2.5,
        "max": 2.5,
        "mean": 2.5,
        "mad": 0.0,
        "n": 1,
    }
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
    session = run([target(n, clock, log) for n in "ABC"], rounds=60, warm_up=NO_WARM_UP, clock=clock)
    by_round = ["".join(name for name, number in log[3 * k : 3 * k + 3] if number == k) for k in range(60)]
    assert all(sorted(order) == ["A", "B", "C"] for order in by_round)
    assert session.rounds == 60 and not session.interrupted
    assert len(set(by_round)) == 6  # every order occurs, so that none keeps step with a scheduler
    again = []
    run([target(n, clock, again) for n in "ABC"], rounds=60, warm_up=NO_WARM_UP, clock=clock)
    assert again == log


def test_samples_are_what_the_clock_says(clock):
    session = run([target("A", clock, [], (2.0, 5.0))], rounds=4, warm_up=NO_WARM_UP, clock=clock)
    assert session.measurements[0].samples_ms == [2.0, 5.0, 2.0, 5.0]
    assert session.seconds == pytest.approx(0.014)


def test_processor_time_is_the_calls_own(clock):
    spent = [0]

    def works(number):
        clock.pass_ms(10.0)  # of which another process took 7
        spent[0] += 3_000_000

    session = run([Target("A", works, "engine")], rounds=2, warm_up=NO_WARM_UP, clock=clock, cpu=lambda: spent[0])
    assert session.measurements[0].samples_ms == [10.0] * 2 and session.measurements[0].cpu_ms == [3.0] * 2


def test_calls_that_others_interrupted_are_counted(clock):
    taken = [0]

    def works(number):
        clock.pass_ms(1.0)
        taken[0] += 3 if number % 2 else 0

    session = run([Target("A", works, "engine")], rounds=5, warm_up=NO_WARM_UP, clock=clock, switches=lambda: taken[0])
    assert session.measurements[0].preempted == 2


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
    counts = [len(m.samples_ms) for m in session.measurements]
    assert counts[1] == 2 and counts[0] in (2, 3)  # whether A came first in the round that was interrupted
    assert [len(m.cpu_ms) for m in session.measurements] == counts


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
    session = run([null_target(), anchor_target()], rounds=200)
    assert (
        0 <= np.median(session.measurements[0].samples_ms) < 0.02
    )  # 20 us an iteration; a quiet machine takes below 1


def test_a_clock_that_steps_back_costs_one_sample_and_is_counted(clock):
    def steps(number):
        clock.pass_ms(-3_600_000.0 if number == 2 else 5.0)

    session = run([Target("A", steps, "engine"), target("B", clock, [])], rounds=5, warm_up=NO_WARM_UP, clock=clock)
    assert session.measurements[0].samples_ms == [5.0] * 4 and session.clock_steps == 1
    assert session.measurements[1].samples_ms == [1.0] * 5 and session.rounds == 5


def test_a_clock_that_steps_back_does_not_make_a_duration_endless(clock):
    def steps(number):
        clock.pass_ms(-3_600_000.0 if number == 1 else 50.0)

    session = run([Target("A", steps, "engine")], duration_s=0.2, warm_up=NO_WARM_UP, clock=clock)
    assert session.rounds == 5 and session.clock_steps == 1 and session.seconds == pytest.approx(0.2)


def test_a_calendar_that_is_set_is_told_and_moves_no_latency(clock):
    calendar = FakeWall(clock)

    def sets(number):
        clock.pass_ms(2.0)
        calendar.offset_ns += 3_600 * 10**9 if number == 1 else 0

    session = run([Target("A", sets, "engine")], rounds=3, warm_up=NO_WARM_UP, clock=clock, wall=calendar)
    assert session.measurements[0].samples_ms == [2.0] * 3
    assert session.wall_shift_s == pytest.approx(3600) and session.clock_steps == 0


class FakeWall:
    """A calendar clock that runs with the monotonic one unless it is set."""

    def __init__(self, clock):
        self.clock, self.offset_ns = clock, 10**18

    def __call__(self):
        return self.clock() + self.offset_ns


def test_the_anchor_alone_keeps_no_run_alive(clock):
    session = run(
        [anchor_target(), target("A", clock, [], raises_at=1)], duration_s=1e9, warm_up=NO_WARM_UP, clock=clock
    )
    assert session.rounds <= 1


def test_the_first_call_is_kept_apart(clock):
    slow_first = target("A", clock, [], (90.0, *[5.0] * 20))
    measured = run([slow_first], rounds=1, warm_up=WarmUp(window=1), clock=clock).measurements[0]
    assert measured.first_call_ms == 90.0 and measured.samples_ms == [5.0]


def test_peak_memory_of_a_call(tmp_path):
    status, reset = tmp_path / "status", tmp_path / "clear_refs"
    status.write_text("VmHWM:\t 9000 kB\nVmRSS:\t 2048 kB\n")
    reader = PeakMemory(status, reset)
    assert reader.peak_mib() == pytest.approx(9000 / 1024, abs=1e-3)
    assert reader.extra_mib(lambda: status.write_text("VmHWM:\t 5120 kB\nVmRSS:\t 2048 kB\n")) == 3.0
    assert reset.read_text() == "5"
    assert PeakMemory(tmp_path / "nothing", tmp_path).extra_mib(lambda: None) is None  # not Linux, or not allowed


def test_a_target_that_fails_under_the_memory_reader_keeps_its_timing(clock, tmp_path):
    good, bad = target("A", clock, []), target("B", clock, [], raises_at=3)
    session = run([good, bad], rounds=2, warm_up=NO_WARM_UP, clock=clock)
    (tmp_path / "status").write_text("VmHWM: 2 kB\nVmRSS: 1 kB\n")
    found = measure_extra(session.measurements, PeakMemory(tmp_path / "status", tmp_path / "reset"))
    assert found == {"A": 0.001, "B": None} and len(session.measurements[1].samples_ms) == 2


def test_a_cold_start_is_told_by_stages(tmp_path):
    seen = []

    def spawn(arguments):
        seen.append(arguments[2:])
        return "a line of a library\n[0.5, 0.25, 0.125]\n"

    found = cold_start(tmp_path, "cpu", "int8", threads=2, repeats=2, spawn=spawn)
    assert found.error is None and found.repeats == 2
    assert {stage: found.stages_ms[stage].p50 for stage in ("import", "open", "first frame")} == {
        "import": 500.0,
        "open": 250.0,
        "first frame": 125.0,
    }
    assert seen[0] == [str(tmp_path), "cpu", "int8", "kernel", "2"]


@pytest.mark.parametrize("answer", ["", "not json", '[1, "a"]'])
def test_a_cold_start_that_fails_says_so(tmp_path, answer):
    found = cold_start(tmp_path, "cpu", "fp32", spawn=lambda arguments: answer)
    assert found.error and found.stages_ms is None


def test_a_cold_start_of_nothing_names_the_reason(tmp_path):
    assert "no bundle" in cold_start(tmp_path / "nowhere.qanet", "cpu", "fp32", repeats=1).error


def test_neither_duration_nor_rounds_is_a_mistake_of_the_caller(clock):
    with pytest.raises(ValueError, match="duration_s, rounds"):
        run([null_target()], clock=clock)
