"""What goes wrong while `qanet benchmark` runs: the rest goes on, what was measured is reported, the table says so."""

import json
from functools import partial

import pytest

from qanet.benchmarks import command, harness
from qanet.benchmarks.harness import WarmUp
from qanet.benchmarks.results import read_document
from qanet.bundle import open_bundle
from qanet.runtime.backends.openvino import cpu_signature, openvino_core, version
from qanet.runtime.parser import Parser

pytest.importorskip("openvino", reason="the tiny bundle's engine runs on OpenVINO")

ROUNDS = 5


@pytest.fixture
def benchmark(tiny_bundle, make_clip, boxes_file, tmp_path):
    """Runs the command on the tiny bundle; exit code and document."""

    def run(*extra):
        arguments = [str(tiny_bundle), "--input", str(make_clip()), "--boxes", str(boxes_file), "--device", "cpu"]
        arguments += ["--threads", "1", "--rounds", str(ROUNDS), "--output", str(tmp_path / "out"), *extra]
        code = command.main(arguments)
        return code, read_document(tmp_path / "out" / "results.json")

    run.page = tmp_path / "out" / "report.html"
    return run


def breaks_after(monkeypatch, owner, method, calls, error):
    """Let a method do so many calls, then raise: from then on, but Ctrl-C once."""
    original, made = getattr(owner, method), []

    def call(self, *arguments):
        made.append(1)
        if len(made) == calls + 1 or (len(made) > calls and isinstance(error, Exception)):
            raise error
        return original(self, *arguments)

    monkeypatch.setattr(owner, method, call)


@pytest.fixture
def no_warm_up(monkeypatch):
    """Every call is a timed one, so that a call's number tells its round."""
    monkeypatch.setattr(harness, "run", partial(harness.run, warm_up=WarmUp(max_calls=0)))


def by_kind(document):
    return {target["kind"]: target for target in document["targets"] if target["batch"] in (1, 2)}


def test_a_target_that_raises_in_the_middle_is_out_and_the_table_says_so(benchmark, monkeypatch, no_warm_up, capsys):
    breaks_after(monkeypatch, Parser, "parse", 3, RuntimeError("the driver went away"))
    code, document = benchmark()
    broken, engine = by_kind(document)["parser"], by_kind(document)["engine"]
    assert code == 0 and (broken["status"], broken["latency_ms"]["n"]) == ("failed", 3)
    assert engine["status"] == "measured" and engine["latency_ms"]["n"] == ROUNDS == document["timing"]["rounds"]
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("fp32 parser, a frame"))
    assert row.endswith("failed: RuntimeError: the driver went away")
    page = benchmark.page.read_text()
    assert "failed: RuntimeError: the driver went away" in page and "the report has no pictures" in page
    assert "fp32 parser, a frame: failed: RuntimeError: the driver went away" in document["warnings"]


def test_ctrl_c_in_the_rounds_reports_what_was_measured(benchmark, monkeypatch, no_warm_up, capsys):
    breaks_after(monkeypatch, Parser, "parse", 3, KeyboardInterrupt())
    code, document = benchmark("--cold-starts", "1")
    assert code == 130 and document["timing"]["interrupted"] and document["timing"]["rounds"] == 3
    assert by_kind(document)["parser"]["latency_ms"]["n"] == 3 and "cold_start" not in document
    assert any(line.startswith("interrupted after 3 rounds") for line in document["warnings"])
    out = capsys.readouterr().out
    assert json.loads(out.splitlines()[-1])["interrupted"] and "fp32 parser, a frame" in out
    assert benchmark.page.is_file()


def test_ctrl_c_in_the_warm_up_still_writes_a_report_without_a_figure(benchmark, monkeypatch):
    breaks_after(monkeypatch, Parser, "parse", 0, KeyboardInterrupt())
    code, document = benchmark()
    assert code == 130 and not any(target["samples_ms"] for target in document["targets"])
    assert by_kind(document)["parser"]["status"] == "not measured" and benchmark.page.is_file()


def test_a_clock_that_steps_back_is_told_and_ratios_are_not_paired(benchmark, monkeypatch):
    ticks, back_ns = iter(range(0, 10**9, 1_000_000)), [0]
    parse, calls = Parser.parse, []

    def clock():
        return next(ticks) - back_ns[0]

    def sets_the_clock(self, *arguments):
        calls.append(1)
        back_ns[0] = 3_600 * 10**9 if len(calls) >= 4 else 0
        return parse(self, *arguments)

    monkeypatch.setattr(Parser, "parse", sets_the_clock)
    monkeypatch.setattr(harness, "run", partial(harness.run, warm_up=WarmUp(max_calls=0), clock=clock))
    code, document = benchmark("--tail", "kernel,graph")
    assert code == 0 and document["timing"]["clock_steps"] == 1 and document["timing"]["rounds"] == ROUNDS
    assert any("the clock went backwards: 1 samples were dropped" in line for line in document["warnings"])
    assert all(sample >= 0 for target in document["targets"] for sample in target["samples_ms"])
    assert {entry["parser_speed_up_interval"] for entry in document["comparison"]} == {None}


@pytest.mark.parametrize(
    ("changed", "loads"),
    [({}, True), ({"cpu": "Another CPU [FP32]"}, False), ({"version": "2019.1"}, False)],
    ids=["this machine's", "another CPU's", "another version's"],
)
def test_an_engine_of_another_machine_is_not_loaded_nor_its_census_told(
    benchmark, tiny_bundle, monkeypatch, changed, loads
):
    """OpenVINO would take the file; what it holds was compiled for other instructions."""
    core, bundle = openvino_core(), open_bundle(tiny_bundle)
    imported = []
    entry = {
        "runtime": "openvino",
        "version": version(),
        "precision": "fp32",
        "targets": ["cpu-x"],
        "hint": "f32",
        "cpu": cpu_signature(core),
        "outputs": ["logits", "iou_scores"],
        "census": {"multiply_add_shares": {"fp32": 1.0}},
        **changed,
    }
    bundle.add_engine("engines/e.blob", b"machine code", entry)
    bundle.save()

    class Core:
        """Counts imports, and refuses them."""

        def __getattr__(self, name):
            return getattr(core, name)

        def import_model(self, data, device, config):
            imported.append(bytes(data))
            raise RuntimeError("not a compiled model")

    monkeypatch.setattr("qanet.runtime.backends.openvino.openvino_core", Core)
    code, document = benchmark()
    assert code == 0 and imported == ([b"machine code"] if loads else [])
    assert by_kind(document)["engine"]["status"] == "measured"
    told = document["executions"]["fp32"]["multiply_add_shares"]
    assert told == (None if "cpu" in changed else {"fp32": 1.0})
