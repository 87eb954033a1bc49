"""Verdicts: on exact numbers, on noise like that of shared machines, and through the command."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qanet.__main__ import main as qanet
from qanet.benchmarks.compare import compare_results
from qanet.benchmarks.results import read_results
from qanet.benchmarks.verdict import (
    CANNOT_TELL,
    FASTER,
    SLOWER,
    Run,
    draw_blocks,
    interval_of,
    judge,
    judge_paired,
    paired_ratio,
    percentile_statistic,
)
from qanet.errors import QanetError

MEDIAN = percentile_statistic(50)


def noisy(rng, rounds=250, median_ms=8.0, factor=1.0, machine=1.0):
    """A run as recorded on two shared cores: drift over the rounds that the anchor shares, noise of a few percent,
    and now and then a call that another process delayed."""
    drift = np.cumsum(rng.normal(0, 0.004, rounds))
    shared = machine * np.exp(drift - drift.mean())

    def series(typical, spread):
        noise = np.exp(rng.normal(0, spread, rounds)) + rng.exponential(0.4, rounds) * (rng.random(rounds) < 0.05)
        return (typical * shared * noise).tolist()

    return Run(series(median_ms * factor, 0.03), series(0.5, 0.02))


def test_the_same_comparison_repeated_never_flips_and_finds_five_percent():
    rng = np.random.default_rng(3)
    verdicts = {
        factor: [judge(noisy(rng), noisy(rng, factor=factor), MEDIAN).verdict for _ in range(10)]
        for factor in (1.0, 1.05, 1 / 1.05)
    }
    assert verdicts[1.0] == [CANNOT_TELL] * 10
    assert verdicts[1.05].count(SLOWER) >= 9 and FASTER not in verdicts[1.05]
    assert verdicts[1 / 1.05].count(FASTER) >= 9 and SLOWER not in verdicts[1 / 1.05]


@pytest.mark.parametrize("machine", [0.9, 1.1, 1.5])
def test_a_slower_machine_is_not_called_a_slower_program(machine):
    rng = np.random.default_rng(4)
    found = [judge(noisy(rng), noisy(rng, machine=machine), MEDIAN) for _ in range(10)]
    assert {v.verdict for v in found} == {CANNOT_TELL}
    assert all("the machine itself took" in v.reason for v in found)
    assert np.median([v.machine_ratio for v in found]) == pytest.approx(machine, rel=0.03)


def test_an_anchor_that_moved_alone_is_doubt_not_a_gain():
    rng = np.random.default_rng(5)
    old, new = noisy(rng), noisy(rng)
    lifted = Run(new.samples_ms, [1.2 * value for value in new.anchor_ms])
    assert judge(old, lifted, MEDIAN).verdict == CANNOT_TELL


def test_interrupted_calls_need_the_processor_time_to_agree():
    """Long calls are interrupted by other processes, short anchors are not: the anchor stands still."""
    rng = np.random.default_rng(20)
    old, new = noisy(rng), noisy(rng)
    crowded = Run([1.5 * value for value in new.samples_ms], new.anchor_ms)
    assert judge(old, crowded, MEDIAN).verdict == SLOWER  # nothing tells that somebody else took the time
    told = judge(replace(old, cpu_ms=old.samples_ms), replace(crowded, cpu_ms=new.samples_ms), MEDIAN)
    assert told.verdict == CANNOT_TELL and "processor time" in told.reason
    heavier = replace(crowded, cpu_ms=[1.3 * value for value in new.samples_ms])
    assert judge(replace(old, cpu_ms=old.samples_ms), heavier, MEDIAN).verdict == SLOWER


def test_a_large_change_is_found_though_the_machine_moved():
    rng = np.random.default_rng(6)
    assert judge(noisy(rng), noisy(rng, factor=2.0, machine=1.1), MEDIAN).verdict == SLOWER


def test_another_machine_is_compared_by_the_ratio_to_the_baseline():
    rng = np.random.default_rng(7)
    old, new = noisy(rng), noisy(rng, machine=3.0)
    assert judge(old, new, MEDIAN, same_machine=False).ratio.value == pytest.approx(1.0, abs=0.05)
    slower = noisy(rng, factor=1.2, machine=3.0)
    assert judge(old, slower, MEDIAN, same_machine=False).verdict == SLOWER
    without = judge(old, Run(new.samples_ms, []), MEDIAN, same_machine=False)
    assert without.verdict == CANNOT_TELL and "--baseline" in without.reason and without.ratio is None


def shared_rounds(rng, factor, rounds=60):
    """Two programs in the same rounds on a crowded machine: processor times share its drift, and latencies are
    multiples of them, more so for the longer calls."""
    drift = np.exp(np.cumsum(rng.normal(0, 0.01, rounds)))
    cpu = [8.0 * f * drift * np.exp(rng.normal(0, 0.03, rounds)) for f in (1.0, factor)]
    wall = [c * (1 + rng.integers(0, 4, rounds) * (0.3 if c is cpu[0] else 0.35)) for c in cpu]
    return [Run(w.tolist(), (), c.tolist()) for w, c in zip(wall, cpu)]


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, CANNOT_TELL), (1.05, SLOWER), (1 / 1.05, FASTER)])
def test_the_same_rounds_find_five_percent_on_a_crowded_machine(factor, verdict):
    rng = np.random.default_rng(21)
    found = [judge_paired(*shared_rounds(rng, factor), MEDIAN).verdict for _ in range(10)]
    assert found.count(verdict) >= 9 and set(found) <= {verdict, CANNOT_TELL}


def test_the_same_rounds_without_interruptions_compare_latencies():
    assert judge_paired(Run([1.0] * 20, []), Run([1.5] * 20, []), MEDIAN).ratio.value == 1.5
    assert judge_paired(Run([1.0] * 9, []), Run([1.5] * 20, []), MEDIAN).verdict == CANNOT_TELL


def test_few_samples_cannot_tell():
    assert judge(Run([1.0] * 9, []), Run([9.0] * 50, []), MEDIAN).reason == "9 samples, 10 are needed"


def test_exact_series_have_exact_intervals():
    twice = paired_ratio([4.0] * 20, [2.0] * 20, MEDIAN)
    assert (twice.value, twice.low, twice.high) == (2.0, 2.0, 2.0)
    drifting = np.linspace(1, 3, 40)  # the ratio stays though both move: they are drawn together
    assert paired_ratio(2 * drifting, drifting, MEDIAN).high == pytest.approx(2.0)
    assert paired_ratio([2.0] * 9, [1.0] * 5, MEDIAN).value == 2.0
    one = interval_of([5.0], MEDIAN)
    assert (one.value, one.low, one.high) == (5.0, 5.0, 5.0)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(8)
    found = [interval_of(rng.normal(10, 1, 200), MEDIAN, draws=300) for _ in range(200)]
    covered = np.mean([i.low <= 10 <= i.high for i in found])
    assert 0.88 <= covered <= 0.99


@pytest.mark.parametrize("count", [1, 2, 7, 100])
def test_blocks_hold_neighbours_and_every_draw_is_full(count):
    chosen = draw_blocks(count, 50)
    assert chosen.shape == (50, count) and chosen.min() >= 0 and chosen.max() < count
    steps = np.diff(chosen, axis=1) % count
    assert count < 3 or (steps == 1).mean() > 0.5


def document(rng, factor=1.0, model="Some CPU", accuracy=None, schema=2):
    run = noisy(rng, factor=factor)

    def entry(name, kind, samples):
        return {
            "name": name,
            "kind": kind,
            "variant": "int8",
            "session": "rounds",
            "samples_ms": list(samples),
            "cpu_samples_ms": list(samples),
        }

    return {
        "schema_version": schema,
        "kind": "qanet benchmark",
        "timing": {"clock_steps": 0},
        "machine": {"cpu": {"model": model, "usable_cpus": 2}, "gpus": []},
        "targets": [
            entry("null", "null", [0.001] * 20),
            entry("anchor (fixed work)", "anchor", run.anchor_ms),
            entry("int8 engine, batch 1", "engine", run.samples_ms),
        ],
        "comparison": [{"label": "int8", "measured_accuracy": accuracy}],
    }


@pytest.fixture
def files(tmp_path):
    """Writes two documents; gives their paths."""

    def write(old, new):
        paths = [tmp_path / "old.json", tmp_path / "new.json"]
        for path, content in zip(paths, (old, new)):
            path.write_text(json.dumps(content))
        return [str(path) for path in paths]

    return write


@pytest.mark.parametrize(
    ("factor", "options", "code"),
    [(1.0, [], 0), (1.3, [], 1), (1.3, ["--fail-above", "0.5"], 0), (0.7, [], 0), (1.3, ["--resolution", "0.9"], 0)],
)
def test_the_exit_code_is_for_ci(files, capsys, factor, options, code):
    rng = np.random.default_rng(9)
    paths = files(document(rng), document(rng, factor))
    assert qanet(["benchmark", "--compare", *paths, *options]) == code
    out = capsys.readouterr().out
    assert json.loads(out.splitlines()[-1])["regressions"] == (3 if code else 0)  # p50, p90 and processor time
    assert ("REGRESSION" in out) is bool(code) and "anchor" not in out.splitlines()[2]


def test_json_holds_ratio_interval_and_verdict(files, capsys):
    rng = np.random.default_rng(10)
    assert qanet(["benchmark", "--json", "--compare", *files(document(rng), document(rng, 1.3))]) == 1
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [(r["target"], r["metric"], r["verdict"]) for r in rows][0] == ("int8 engine, batch 1", "p50 ms", "slower")
    assert rows[0]["ratio"]["low"] < rows[0]["ratio"]["value"] < rows[0]["ratio"]["high"]


@pytest.mark.parametrize("schema", [1, 3])
def test_another_schema_is_refused(files, capsys, schema):
    rng = np.random.default_rng(11)
    paths = files(document(rng), document(rng, schema=schema))
    assert qanet(["benchmark", "--compare", *paths]) == 2
    error = capsys.readouterr().err
    assert "new.json" in error and "schema" in error and error.count("\n") == 1
    with pytest.raises(QanetError):
        read_results(Path(paths[1]))


def test_nothing_in_common_is_a_mistake():
    rng = np.random.default_rng(12)
    old, new = document(rng), document(rng)
    new["targets"][2]["name"] = "fp16 engine, batch 1"
    with pytest.raises(QanetError, match="share no target"):
        compare_results(old, new)


def test_targets_without_a_partner_are_listed():
    rng = np.random.default_rng(13)
    old, new = document(rng), document(rng)
    old["targets"].append({**copy.deepcopy(old["targets"][2]), "name": "gone"})
    found = compare_results(old, new)
    assert found["only_old"] == ["gone"] and found["only_new"] == []


def test_another_machine_without_a_baseline_cannot_tell():
    rng = np.random.default_rng(14)
    found = compare_results(document(rng), document(rng, 5.0, model="Other CPU"))
    assert not found["same_machine"] and found["regressions"] == 0
    assert {row["verdict"] for row in found["rows"]} == {"cannot tell"}


@pytest.mark.parametrize(
    ("new", "verdict", "is_regression"),
    [
        ((0.50, 0.49, 0.51), "worse", True),
        ((0.59, 0.58, 0.605), "cannot tell", False),
        ((0.70, 0.69, 0.71), "better", False),
        ((0.585, 0.583, 0.587), "worse", False),
    ],
)
def test_accuracy_is_called_where_the_intervals_part(new, verdict, is_regression):
    rng = np.random.default_rng(15)

    def accuracy(value, low, high):
        return {
            "data": "ccp val",
            "images": 100,
            "protocol": "official",
            "values": {"miou": {"value": value, "low": low, "high": high}},
        }

    old, other = document(rng, accuracy=accuracy(0.60, 0.59, 0.61)), document(rng, accuracy=accuracy(*new))
    (row,) = [r for r in compare_results(old, other)["rows"] if r["metric"] == "miou"]
    assert (row["verdict"], row["regression"]) == (verdict, is_regression)
    other["comparison"][0]["measured_accuracy"]["images"] = 50
    assert not [r for r in compare_results(old, other)["rows"] if r["metric"] == "miou"]


@pytest.mark.parametrize("options", [["--fail-above", "-1"], ["--resolution", "nan"], ["--fail-above", "x"]])
def test_shares_that_make_no_sense(files, capsys, options):
    rng = np.random.default_rng(16)
    assert qanet(["benchmark", "--compare", *files(document(rng), document(rng)), *options]) == 2


def test_a_file_that_is_not_there(tmp_path, capsys):
    assert qanet(["benchmark", "--compare", str(tmp_path / "a.json"), str(tmp_path / "b.json")]) == 2
    assert "cannot be read as JSON" in capsys.readouterr().err
