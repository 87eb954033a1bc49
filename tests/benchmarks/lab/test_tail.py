"""The arithmetic of the tail's benchmark, on forms and clocks of which everything is known."""

import json
import re

import numpy as np
import pytest

from qanet.benchmarks.lab import tail
from qanet.benchmarks.lab.tail import Form, copy_bandwidth, find_forms, floor_ms, peak_mib, refusal
from qanet.benchmarks.score_cases import Case, all_cases, box_of, difference
from qanet.errors import QanetError
from qanet.quality import PixelScores, pixel_score

SMALL = Case("small", "people", 4, (8, 6), (40, 50), ((3, 4, 27, 36), (10, 2, 34, 34)))


class FakeForm:
    """Answers as the reference does, wrongly when told so, and takes a fixed time of a fake clock."""

    def __init__(self, name, clock, duration_ms, spoil=None):
        self.name, self.clock, self.duration_ms, self.spoil = name, clock, duration_ms, spoil

    def __call__(self, arguments):
        self.clock.pass_ms(self.duration_ms)
        scored = pixel_score(**arguments)
        if self.spoil is not None:
            self.spoil(scored)
        return scored


def no_peak(form, case):
    return 3.5, "a fake"


def flip_labels(scored):
    scored.labels[1][:] ^= 1


def test_rows_have_medians_ratios_and_distance_to_the_floor(clock):
    forms = [FakeForm("numpy", clock, 8.0), FakeForm("native", clock, 2.0), FakeForm("baseline", clock, 40.0)]
    bandwidth = SMALL.floor_bytes() * 1000.0  # a millisecond for the floor
    rows = tail.measure_case(SMALL, forms, bandwidth, 0.5, no_peak, clock)
    assert [row["form"] for row in rows] == ["numpy", "native", "baseline"]
    assert [row["latency_ms"]["p50"] for row in rows] == [8.0, 2.0, 40.0]
    assert [row["speed_up"] for row in rows] == [5.0, 20.0, 1.0]
    assert [row["times_floor"] for row in rows] == pytest.approx([8, 2, 40])
    assert {(row["status"], row["peak_mib"], row["floor_ms"]) for row in rows} == {("ok", 3.5, 1.0)}
    assert len({row["latency_ms"]["n"] for row in rows}) == 1  # rounds: as many of each


def test_a_form_whose_answer_is_wrong_is_not_timed(clock):
    forms = [FakeForm("numpy", clock, 1.0), FakeForm("native", clock, 1.0, flip_labels)]
    good, bad = tail.measure_case(SMALL, forms, 1e9, 0.01, no_peak, clock)
    assert good["status"] == "ok" and good["speed_up"] is None  # no baseline in the run
    assert bad["status"] == "refused"
    assert re.match(r"person 1: (\d+) of \1 labels differ from the reference", bad["reason"])
    assert bad["latency_ms"] == {"n": 0} and bad["peak_mib"] is None and bad["times_floor"] is None


def test_a_form_that_raises_is_refused_and_the_others_go_on(clock):
    def spoil(scored):
        raise RuntimeError("no such device")

    rows = tail.measure_case(
        SMALL, [FakeForm("native", clock, 1, spoil), FakeForm("numpy", clock, 1)], 1e9, 0.01, no_peak, clock
    )
    assert [row["status"] for row in rows] == ["refused", "ok"] and rows[0]["reason"] == "RuntimeError: no such device"


def scores(**change):
    fields = {
        "rois": np.array([[1, 1, 4, 3]], np.int32),
        "labels": [np.ones((2, 3), np.uint8)],
        "pixel_scores": np.array([0.5], np.float32),
        "part_scores": np.array([[0.5, 0]], np.float32),
        "image_size": (5, 6),
    }
    return PixelScores(**(fields | change))


def test_the_regions_may_differ_but_not_what_is_in_them():
    whole = scores(rois=np.array([[0, 0, 6, 5]], np.int32), labels=[scores().full(0)])
    assert difference(whole, scores()) is None
    assert "1 of 6 labels differ" in difference(scores(labels=[np.array([[1, 1, 1], [1, 0, 1]], np.uint8)]), scores())
    assert "0 label maps where 1" in difference(scores(labels=[]), scores())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"pixel_scores": np.array([0.5002], np.float32)}, "pixel_scores differ"),
        ({"pixel_scores": np.array([np.nan], np.float32)}, "pixel_scores differ"),
        ({"part_scores": np.array([[0.5, 0.1]], np.float32)}, "part_scores differ"),
        ({"part_scores": np.array([[0.5]], np.float32)}, "part_scores differ"),
        ({"part_scores": np.array([[0.50005, 0]], np.float32)}, None),
    ],
)
def test_scores_beyond_rounding_are_named(change, named):
    told = difference(scores(**change), scores())
    assert told is None if named is None else named in told


def test_the_floor_reads_the_logits_and_writes_the_labels_once():
    assert SMALL.area == 2 * 24 * 32 and SMALL.floor_bytes() == 2 * 4 * 8 * 6 * 4 + SMALL.area
    assert floor_ms(SMALL, bandwidth=SMALL.floor_bytes() / 0.25) == pytest.approx(250)


def test_a_straight_line_and_one_that_is_not():
    line = tail.straight_line([(1000, 2.5), (2000, 3.0), (4000, 4.0)])
    assert line == pytest.approx({"ns_per_pixel": 500, "constant_ms": 2.0, "r2": 1.0})
    assert tail.straight_line([(1, 1), (2, 9), (3, 1)])["r2"] == pytest.approx(0)
    assert tail.straight_line([(1, 1), (2, 2)])["r2"] is None


def test_sweeps_by_form():
    cases = [c for c in all_cases() if c.group in ("area", "image")]
    rows = [{"case": c.name, "form": "numpy", "latency_ms": {"p50": c.area * 1e-5}} for c in cases]
    rows += [{"case": c.name, "form": "dead", "latency_ms": {"n": 0}} for c in cases]
    numpy, dead = tail.sweeps(cases, rows)
    assert numpy["ns_per_pixel"] == pytest.approx(10) and numpy["r2"] == pytest.approx(1)
    assert numpy["image_ratio"] == pytest.approx(1)  # the same person in every image
    assert dead == {"form": "dead", "ns_per_pixel": None, "constant_ms": None, "r2": None, "image_ratio": None}


def test_cases_have_names_of_their_own_and_boxes_inside_their_images():
    cases = all_cases()
    assert len({case.name for case in cases}) == len(cases)
    for case in cases:
        height, width = case.image_hw
        for x0, y0, x1, y1 in case.boxes:
            assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height, case.name
    crowd, single = cases[:2]
    assert len(crowd.boxes) == 5 and crowd.area == pytest.approx(2_000_000) and crowd.image_hw == (1080, 1920)
    assert len(single.boxes) == 1 and single.num_classes == 13 and single.map_hw == (96, 72)
    assert box_of(300)[2] - box_of(300)[0] == pytest.approx(15)


def test_logits_are_the_same_each_time_and_every_class_wins():
    assert np.array_equal(SMALL.logits(), SMALL.logits()) and SMALL.logits().dtype == np.float32
    assert set(np.unique(pixel_score(**SMALL.arguments()).labels[0])) == {0, 1, 2, 3}


def test_forms_of_this_machine_pass_their_own_check():
    forms = find_forms(None)
    assert forms[0].name == "numpy"
    assert {form.name: refusal(form, SMALL, SMALL.arguments()) for form in forms} == {f.name: None for f in forms}


@pytest.mark.parametrize("target", ["qanet.no_such_module:f", "qanet.quality:no_such_name", "no_colon"])
def test_a_baseline_that_is_not_there_is_a_users_mistake(target):
    with pytest.raises(QanetError, match=f"the baseline {target} is not available.*export"):
        find_forms(target)


def test_memory_of_numpy_and_of_a_function_in_a_process_of_its_own():
    mib, by = peak_mib(Form("numpy", backend="numpy"), SMALL)
    assert by == "tracemalloc" and 0 < mib < 5
    mib, by = peak_mib(Form("other", target="qanet.quality:pixel_score"), SMALL)
    assert by == "resident memory" and (mib is None or 0 <= mib < 200)


def test_a_copy_moves_bytes():
    assert copy_bandwidth(2, mib=4, repeats=1) > 1e7


def test_the_command_prints_a_table_or_json(monkeypatch, capsys):
    monkeypatch.setattr(tail, "all_cases", lambda: [SMALL])
    monkeypatch.setattr(tail, "copy_bandwidth", lambda threads: 1e10)
    arguments = ["--duration", "0.01", "--cases", "people", "--baseline", "qanet.quality:pixel_score"]
    assert tail.main(arguments) == 0
    text = capsys.readouterr().out
    assert "small  numpy" in text and "small  baseline" in text and "10.0 GB/s" in text
    assert tail.main([*arguments, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {"numpy", "baseline"} <= {row["form"] for row in document["rows"]}
    assert document["cases"][0]["floor_bytes"] == SMALL.floor_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"), [(["--cases", "crowds"], "unknown cases"), (["--duration", "0"], "got 0.0")]
)
def test_bad_arguments(arguments, message):
    with pytest.raises(QanetError, match=message):
        tail.main(arguments)
