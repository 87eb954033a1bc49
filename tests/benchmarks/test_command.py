"""`qanet benchmark` from end to end: on a tiny network, and on a real clip where there is one."""

import json

import pytest

from qanet.__main__ import main as qanet
from qanet.benchmarks import command
from qanet.benchmarks.document import read_document
from qanet.bundle import open_bundle
from qanet.errors import QanetError

pytest.importorskip("openvino", reason="the tiny bundle's engines run on OpenVINO")


@pytest.fixture
def two_precisions(tiny_bundle, tiny_graph):
    """The tiny bundle with the same graph once more as INT8."""
    bundle = open_bundle(tiny_bundle)
    bundle.add_file("model.int8.onnx", tiny_graph)
    bundle.manifest["graphs"]["int8"] = "model.int8.onnx"
    bundle.save()
    return tiny_bundle


@pytest.fixture
def benchmark(two_precisions, make_clip, boxes_file, tmp_path):
    """Runs the command with few rounds; returns the exit code."""

    def run(*extra, clip=None):
        arguments = [str(two_precisions), "--input", str(clip or make_clip()), "--boxes", str(boxes_file)]
        arguments += ["--device", "cpu", "--threads", "1", "--rounds", "3", "--output", str(tmp_path / "out"), *extra]
        return command.main(arguments)

    run.output = tmp_path / "out"
    return run


def test_writes_report_json_and_csv_and_ends_with_a_line_of_json(benchmark, capsys):
    assert benchmark() == 0
    out = capsys.readouterr().out
    summary = json.loads(out.splitlines()[-1])
    assert set(summary["precisions"]) == {"fp32", "int8"} and summary["rounds"] == 3
    assert "not timed:" in out and "int8 parser, a frame" in out
    document = read_document(benchmark.output / "results.json")
    kinds = [(t["kind"], t["precision"], t["batch"]) for t in document["targets"]]
    assert kinds[:3] == [("null", None, 1), ("engine", "fp32", 1), ("engine", "int8", 1)]
    assert ("engine", "int8", 2) in kinds  # two people a frame
    assert all(t["status"] == "measured" and t["latency_ms"]["n"] == 3 for t in document["targets"])
    # The same graph twice, but "int8" lets the rest run in the CPU's 16-bit type where it has one.
    assert document["agreement"]["int8"]["pixels"] > 0.95 and document["checks"]["int8"]["passed"]
    assert document["executions"]["fp32"]["floating_point"] == "f32"
    assert set(document["stages"]["int8"]) == {"crop", "engine", "tail", "suppress"}
    page = (benchmark.output / "report.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 4 + 4  # frames; crop, labels twice, difference
    assert (benchmark.output / "results.csv").read_text().count("\n") == len(document["targets"]) + 1


def test_json_is_the_whole_document_and_nothing_else(benchmark, capsys):
    assert benchmark("--json", "--precision", "int8") == 0
    document = json.loads(capsys.readouterr().out)
    assert document == read_document(benchmark.output / "results.json")
    assert list(document["checks"]) == ["int8"] and document["comparison"][0]["engine_speed_up"] is None


def test_a_wrong_graph_is_refused_and_the_rest_is_timed(benchmark, two_precisions, tiny_graph, capsys):
    import onnx
    from onnx import numpy_helper

    model = onnx.load_model_from_string(tiny_graph)
    for tensor in model.graph.initializer:
        if tensor.name == "weight":
            tensor.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(tensor), "weight"))
    bundle = open_bundle(two_precisions)
    bundle.add_file("model.int8.onnx", model.SerializeToString())
    bundle.save()
    assert benchmark() == 0
    assert "refused to time int8: its labels agree with fp32 on openvino on" in capsys.readouterr().err
    document = read_document(benchmark.output / "results.json")
    assert {t["precision"] for t in document["targets"] if t["samples_ms"]} == {None, "fp32"}
    assert document["targets"][-1]["status"] == "refused"


def test_nothing_that_may_be_timed_is_exit_code_1_with_a_report(benchmark, two_precisions):
    bundle = open_bundle(two_precisions)
    for file in bundle.manifest["graphs"].values():
        bundle.add_file(file, b"not a graph")
    bundle.save()
    assert benchmark() == 1
    assert "does not run" in (benchmark.output / "report.html").read_text()


def test_parse_summary_and_overlay_reach_the_report(benchmark, make_clip, tmp_path):
    summary = tmp_path / "parse.json"
    summary.write_text(json.dumps({"frames": 6, "people": 12, "stages_ms": {"decode": {"p50": 1, "n": 6}}}))
    overlay = make_clip(8, "parsed.avi")
    assert benchmark("--parse-summary", str(summary), "--overlay", str(overlay), clip=make_clip()) == 0
    page = (benchmark.output / "report.html").read_text()
    assert "6 frames, 2.00 people a frame" in page
    assert [n for n in range(8) if f"frame {n} of parsed.avi" in page] == [1, 3, 5, 7]
    assert read_document(benchmark.output / "results.json")["parse"]["frames"] == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--precision", "fp8"], "unknown precision"),
        (["--precision", "fp16"], "has no fp16 graph.*qanet build"),
        (["--precision", ","], "no precision to measure"),
        (["--frames", "0"], "bad --frames"),
        (["--rounds", "0"], "bad --rounds"),
        (["--duration", "0"], "bad --duration"),
        (["--duration", "nan"], "bad --duration"),
        (["--input", "nowhere.mp4"], "no input nowhere.mp4"),
        (["--input", ""], "no input to measure on.*--input VIDEO"),
        (["--overlay", "nowhere.webm"], "no overlay video"),
        (["--parse-summary", "nowhere.json"], "cannot be read as JSON"),
        (["--whole-image"], "not allowed with"),
    ],
)
def test_mistakes_are_errors_with_a_way_out(benchmark, arguments, message):
    with pytest.raises(QanetError, match=message):
        benchmark(*arguments)
    assert not benchmark.output.exists()


def test_no_input_is_exit_code_2_and_one_line(two_precisions, capsys):
    assert qanet(["benchmark", str(two_precisions)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: no input to measure on") and error.count("\n") == 1


def test_a_summary_of_something_else_is_refused(benchmark, tmp_path):
    other = tmp_path / "other.json"
    other.write_text('{"schema_version": 1}')
    with pytest.raises(QanetError, match="not a summary of a parse"):
        benchmark("--parse-summary", str(other))


def test_a_real_clip(shared, two_precisions, tmp_path):
    clip, detector = shared / "data" / "video" / "sports2d_demo.mp4", shared / "data" / "models" / "yolox_nano.onnx"
    if not (clip.is_file() and detector.is_file()):
        pytest.skip("the shared folder has no clip or no detector")
    arguments = ["--input", str(clip), "--detector", str(detector), "--frames", "3", "--rounds", "2", "--device", "cpu"]
    assert command.main([str(two_precisions), *arguments, "--output", str(tmp_path / "out")]) == 0
    source = read_document(tmp_path / "out" / "results.json")["input"]
    assert source["frames"] == 3 and source["people"] >= 1 and source["image_sizes_hw"] == [[994, 1768]]
    assert (tmp_path / "out" / "report.html").stat().st_size < 1_500_000
