"""The benchmark on trial: the injected slow-down, the harness's own cost, and what repeats of a verdict come to."""

import json

import numpy as np
import pytest

from qanet.benchmarks.harness import Target
from qanet.benchmarks.lab import selfcheck
from qanet.benchmarks.lab.selfcheck import LIMIT_US, measure_overhead, same_rounds, separate_runs, summary
from qanet.benchmarks.lab.selfcheck_processes import run_once, slowed
from qanet.benchmarks.results import SCHEMA_VERSION
from qanet.benchmarks.verdict import CANNOT_TELL, FASTER, SLOWER
from qanet.errors import QanetError


def work(number):
    return sum(range(2000))


def test_a_slowed_call_takes_its_share_longer_and_gives_the_same(clock):
    ticks = []

    def reads():
        clock.pass_ms(0.001)
        ticks.append(clock.now_ns)
        return clock.now_ns

    target = slowed(Target("A", lambda number: (clock.pass_ms(10.0), number)[1], "engine"), 0.05, reads)
    begin = clock.now_ns
    assert target.call(7) == 7
    assert clock.now_ns - begin == pytest.approx(10.5e6, rel=1e-3) and len(ticks) > 2
    assert (target.name, target.kind) == ("A", "engine")


def test_the_harness_costs_microseconds():
    found = measure_overhead(Target("work", work, "engine"), 0.2)
    assert found["fits"] and 0 < found["inside_us"]["p50"] < LIMIT_US and 0 <= found["around_us"] < LIMIT_US
    assert found["calls"] > 100


def row(verdict, metric="p50 ms"):
    return {"metric": metric, "verdict": verdict, "reason": "", "ratio": None}


@pytest.mark.parametrize(
    ("same", "changed", "never_flips", "finds"),
    [
        ([CANNOT_TELL] * 10, [SLOWER] * 10, True, True),
        ([CANNOT_TELL] * 10, [SLOWER] * 9 + [CANNOT_TELL], True, True),
        ([CANNOT_TELL] * 10, [SLOWER] * 8 + [CANNOT_TELL] * 2, True, False),
        ([CANNOT_TELL] * 9 + [FASTER], [SLOWER] * 10, False, True),
        ([CANNOT_TELL] * 10, [SLOWER] * 9 + [FASTER], False, True),
    ],
)
def test_what_repeats_come_to(same, changed, never_flips, finds):
    found = summary([[row(v)] for v in same], [[row(v)] for v in changed])
    assert (found["never_flips"], found["finds"]) == (never_flips, finds)
    assert sum(found["same"].values()) == sum(found["changed"].values()) == found["repeats"] == 10


def test_a_flip_of_any_metric_counts():
    quiet = [row(CANNOT_TELL), row(SLOWER, "p90 ms")]
    found = summary([quiet], [[row(SLOWER), row(SLOWER, "p90 ms")]])
    assert found["false_calls"] == 1 and not found["never_flips"] and found["same"] == {CANNOT_TELL: 1}


def result(rng, slowdown, rounds=120):
    """A result of a quiet machine: drift that the anchor shares, noise of a percent."""
    drift = np.exp(np.cumsum(rng.normal(0, 0.001, rounds)))

    def target(name, kind, median_ms):
        samples = (median_ms * drift * np.exp(rng.normal(0, 0.01, rounds))).tolist()
        return {
            "name": name,
            "kind": kind,
            "variant": name,
            "session": "rounds",
            "samples_ms": samples,
            "cpu_samples_ms": samples,
            "preempted_share": 0.0,
        }

    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "qanet benchmark",
        "timing": {"clock_steps": 0},
        "comparison": [],
        "machine": {"cpu": {"model": "Some CPU", "usable_cpus": 2}, "gpus": []},
        "targets": [target("anchor", "anchor", 0.3), target("int8 engine, batch 1", "engine", 6.0 * (1 + slowdown))],
    }


def test_separate_runs_compare_neighbours_and_find_the_slow_down():
    rng, asked = np.random.default_rng(30), []

    def once(slowdown):
        asked.append(slowdown)
        return result(rng, slowdown)

    found = separate_runs(once, 5, 0.05)
    assert asked == [0.0] + [0.05, 0.0] * 5
    assert found["never_flips"] and found["finds"] and found["same"] == {CANNOT_TELL: 5}
    ratios = [ratio["value"] for ratio in found["changed_ratios"]]
    assert np.median(ratios) == pytest.approx(1.05, abs=0.02)


def test_the_same_rounds_open_the_engine_anew_for_every_repeat():
    opened = []

    def open_target():
        opened.append(1)
        return Target("engine", work, "engine")

    found = same_rounds(open_target, 2, 1.0, 1.5)
    assert len(opened) == 6 and found["repeats"] == 2  # an engine for each of the three
    assert found["changed"] == {SLOWER: 2}  # twice as long is found in any weather
    assert all(ratio["value"] > 1.5 for ratio in found["changed_ratios"])


def test_a_run_in_a_process_of_its_own(shared_tiny_bundle):
    pytest.importorskip("openvino")
    document = run_once(shared_tiny_bundle, "fp32", 0.1, 0.5, threads=1)
    assert [target["kind"] for target in document["targets"]] == ["null", "anchor", "engine"]
    assert document["schema_version"] == SCHEMA_VERSION and document["targets"][2]["latency_ms"]["n"] >= 1


def test_a_run_that_fails_tells_its_last_line(tmp_path):
    with pytest.raises(QanetError, match="a run failed.*no bundle"):
        run_once(tmp_path / "nowhere.qanet", "fp32", 0.1)


@pytest.fixture
def measured(monkeypatch):
    """The parts' measurements, made up."""
    found = {
        "overhead": {"calls": 10, "inside_us": {"p50": 0.5, "p99": 1.0, "mean": 0.6}, "around_us": 4.0, "fits": True},
        "program": {
            "program": "benchmark_app",
            "program_ms": [5.0, 5.1],
            "harness_ms": [5.05, 5.15],
            "agrees": True,
            "ratio": {"value": 1.01, "low": 1.0, "high": 1.02},
        },
        "separate": summary([[row(CANNOT_TELL)]], [[row(SLOWER)]]),
        "rounds": summary([[row(CANNOT_TELL)]], [[row(SLOWER)]]),
    }
    monkeypatch.setattr(selfcheck, "open_target", lambda *arguments: (None, Target("engine", work, "engine")))
    for name, function in (
        ("overhead", "measure_overhead"),
        ("program", "compare_with_program"),
        ("separate", "separate_runs"),
        ("rounds", "same_rounds"),
    ):
        monkeypatch.setattr(selfcheck, function, lambda *arguments, name=name, **options: found[name])
    return found


def test_every_promise_has_a_row_and_one_that_is_broken_is_exit_code_1(measured, shared_tiny_bundle, capsys):
    assert selfcheck.main([str(shared_tiny_bundle), "--precision", "fp32"]) == 0
    out = capsys.readouterr().out
    assert out.count("holds") == 4 and "harness over benchmark_app: 1.0100 (1.0000 to 1.0200)" in out
    assert "nothing changed: cannot tell 1; slowed: slower 1" in out
    measured["program"]["agrees"] = False
    assert selfcheck.main([str(shared_tiny_bundle), "--precision", "fp32", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["program"]["agrees"] is False
    assert selfcheck.main([str(shared_tiny_bundle), "--precision", "fp32", "--only", "overhead, rounds"]) == 0
    assert "benchmark_app" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "other"], "unknown part"),
        (["--only", ","], "unknown part"),
        (["--repeats", "0"], "bad --repeats"),
        (["--pairs", "-1"], "bad --pairs"),
        (["--threads", "0"], "bad --threads"),
        (["--seconds", "nan"], "bad --seconds"),
        (["--slowdown", "0"], "bad --slowdown"),
        (["--precision", "fp12"], "unknown precision"),
    ],
)
def test_mistakes_are_errors_with_a_way_out(shared_tiny_bundle, arguments, message):
    with pytest.raises(QanetError, match=message):
        selfcheck.main([str(shared_tiny_bundle), *arguments])
