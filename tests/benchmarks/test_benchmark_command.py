"""`qanet benchmark` from end to end: on a tiny network, and on a real clip where there is one."""

import json
from pathlib import Path

import pytest

from qanet.__main__ import main as qanet
from qanet.benchmarks import command
from qanet.benchmarks import passes as more
from qanet.benchmarks.benchmark import benchmark as run_benchmark
from qanet.benchmarks.options import BenchmarkOptions
from qanet.benchmarks.results import Results, read_document
from qanet.bundle import open_bundle
from qanet.errors import QanetError

pytest.importorskip("openvino", reason="the tiny bundle's engines run on OpenVINO")


KEPT = Path(__file__).parent / "data" / "results_schema_2.json"  # of the same command, before results were records
OF_THE_MACHINE = {"versions", "temperatures_c", "throttle_counts", "throttled", "by_variant", "ms_by_precision"}


def assert_same_keys(found, kept, where="results"):
    """Objects have the same keys in the same order; those whose keys depend on the machine are left out."""
    if isinstance(kept, dict) and isinstance(found, dict):
        assert list(found) == list(kept), where
        for key in kept.keys() - OF_THE_MACHINE:
            assert_same_keys(found[key], kept[key], f"{where}.{key}")
    elif isinstance(kept, list) and isinstance(found, list):
        for one, other in zip(found, kept):
            assert_same_keys(one, other, f"{where}[]")


@pytest.fixture
def two_precisions(tiny_bundle, tiny_int8_graph):
    """The tiny bundle with an INT8 graph too."""
    bundle = open_bundle(tiny_bundle)
    bundle.add_file("model.int8.onnx", tiny_int8_graph)
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
    assert set(summary["variants"]) == {"fp32", "int8"} and summary["rounds"] == 3
    assert "not timed:" in out and "int8 parser, a frame" in out
    document = read_document(benchmark.output / "results.json")
    kinds = [(t["kind"], t["precision"], t["batch"]) for t in document["targets"]]
    assert kinds[:4] == [("null", None, 1), ("anchor", None, 1), ("engine", "fp32", 1), ("engine", "int8", 1)]
    assert ("engine", "int8", 2) in kinds  # two people a frame
    assert all(t["status"] == "measured" and t["latency_ms"]["n"] == 3 for t in document["targets"])
    # INT8 lets the other layers run in the CPU's 16-bit type where it has one.
    assert document["agreement"]["int8"]["pixels"] > 0.95 and document["checks"]["int8"]["passed"]
    assert document["executions"]["fp32"]["floating_point"] == "f32"
    assert document["executions"]["fp32"]["products"] == {"fp32": 1}
    assert document["executions"]["int8"]["products"] == {"int8": 1}
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
    assert "refused to time int8: int8 of tiny answers wrongly on this CPU: logits off by" in capsys.readouterr().err
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


def test_everything_beside_the_rounds_in_one_run(benchmark, tmp_path, capsys):
    import cv2
    import numpy as np

    for folder in ("photos", "labels"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    image, labels = np.full((80, 60, 3), (255, 0, 0), np.uint8), np.ones((80, 60), np.uint8)
    cv2.imwrite(str(tmp_path / "data" / "photos" / "a.png"), image)
    cv2.imwrite(str(tmp_path / "data" / "labels" / "a.png"), labels)
    code = benchmark(
        "--precision",
        "fp32",
        "--tail",
        "kernel,graph",
        "--pipeline-rounds",
        "1",
        "--sweep-rounds",
        "1",
        "--micro",
        "--cold-starts",
        "1",
        "--energy-seconds",
        "0.05",
        "--profile",
        "--data",
        str(tmp_path / "data"),
    )
    assert code == 0
    out = capsys.readouterr().out
    document = read_document(benchmark.output / "results.json")
    labels_of = {"fp32 (kernel tail)", "fp32 (graph tail)"}
    assert not [line for line in document["warnings"] if "Error" in line], document["warnings"]
    for key in ("accuracy", "pipeline", "cold_start", "profile", "open_ms"):
        assert set(document[key]) == labels_of, key
    assert set(document["sweeps"]["persons"]) == labels_of and document["micro"]["rows"]
    assert document["energy"]["status"] in ("measured", "unavailable")
    assert document["cold_start"]["fp32 (graph tail)"]["error"] is None
    by_label = {entry["label"]: entry for entry in document["comparison"]}
    assert by_label["fp32 (graph tail)"]["engine_speed_up_interval"]["low"] > 0
    assert by_label["fp32 (kernel tail)"]["measured_accuracy"]["images"] == 1
    assert {entry["pareto"] for entry in document["comparison"]} <= {True, False}
    assert_same_keys(document, json.loads(KEPT.read_text()))
    assert Results.from_json(document).to_json() == document
    assert json.loads((benchmark.output / "trace.json").read_text())["traceEvents"]
    assert "start and memory" in out and "piece " in out and "video pipeline" in out and "energy" in out
    assert set(json.loads(out.splitlines()[-1])["variants"]) == labels_of
    page = (benchmark.output / "report.html").read_text()
    assert all(f'id="{name}"' in page for name in ("accuracy", "sweeps", "pieces", "profiles", "video", "costs"))


def test_a_document_is_read_and_written_as_it_was():
    text = KEPT.read_text()
    results = Results.from_json(json.loads(text))
    assert json.dumps(results.to_json(), separators=(",", ":")) == text.rstrip()
    assert results.comparison[0].parser_ms.p50 > 0 and results.input.people == 12


def test_the_library_measures_without_a_command_line_and_writes_nothing(
    two_precisions, make_clip, boxes_file, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    before, lines = sorted(tmp_path.iterdir()), []
    clip = str(make_clip())
    options = BenchmarkOptions(clip, devices=["cpu"], boxes=str(boxes_file), threads=1, rounds=2, profile=True)
    results = run_benchmark(open_bundle(two_precisions), options, lines.append)
    assert [row.label for row in results.comparison] == ["fp32", "int8"]
    assert results.comparison[1].engine_speed_up > 0 and results.checks["int8"].passed
    assert results.timing.rounds == 2 and results.profile["int8"].layers and results.trace is None
    assert set(tmp_path.iterdir()) == {*before, Path(clip)}
    assert lines[0] == "12 people in 6 of 6 frames"


def test_two_bundles_are_timed_in_the_same_rounds(benchmark, two_precisions, capsys):
    assert benchmark(str(two_precisions), "--precision", "fp32") == 0
    document = read_document(benchmark.output / "results.json")
    assert [bundle["name"] for bundle in document["bundles"]] == ["tiny", "tiny"]
    labels = [entry["label"] for entry in document["comparison"]]
    assert labels == ["tiny 64x64 #1 fp32", "tiny 64x64 #2 fp32"]
    assert {t["variant"] for t in document["targets"] if t["samples_ms"]} == {None, *labels}
    assert [(row["kind"], row["old"], row["new"]) for row in document["models"]] == [
        (kind, *labels) for kind in ("engine", "tail", "parser")
    ]
    assert {row["verdict"] for row in document["models"]} == {"cannot tell"}  # 3 rounds are too few
    assert "models in the same rounds" in capsys.readouterr().out
    assert 'id="models"' in (benchmark.output / "report.html").read_text()


def test_the_pytorch_form_is_a_target_of_the_same_rounds(benchmark, monkeypatch, the_pytorch_form):
    from qanet.benchmarks import targets as baseline

    monkeypatch.setattr(baseline, "label_share", lambda labels, parser, sample: 1.0)

    class Scored:
        labels = ()

    def open_baseline(bundle, threads):
        return lambda image, boxes, scores: (Scored, scores)

    the_pytorch_form(open_baseline)
    assert benchmark("--precision", "fp32", "--baseline") == 0
    document = read_document(benchmark.output / "results.json")
    (target,) = [t for t in document["targets"] if t["kind"] == "baseline"]
    assert target["status"] == "measured" and target["session"] == "rounds" and target["latency_ms"]["n"] == 3
    fp32, torch = document["comparison"]
    assert fp32["over_baseline"]["value"] > 0 and torch["label"] == "tiny in PyTorch" and torch["engine_ms"] is None


def test_a_baseline_that_is_refused_is_told_and_the_rest_is_timed(benchmark, capsys, the_pytorch_form):
    def open_baseline(bundle, threads):
        raise QanetError("no weights")

    the_pytorch_form(open_baseline)
    assert benchmark("--precision", "fp32", "--baseline") == 0
    assert "refused to time tiny in PyTorch: no weights" in capsys.readouterr().err


def test_a_pass_that_fails_is_told_and_the_report_is_written(benchmark, monkeypatch, capsys):
    def fails(*arguments):
        raise RuntimeError("broke")

    monkeypatch.setattr(more, "copy_bytes_per_second", fails)
    assert benchmark("--precision", "fp32", "--micro", "--cold-starts", "1") == 0
    document = read_document(benchmark.output / "results.json")
    assert "pieces and floors: RuntimeError: broke" in document["warnings"] and "cold_start" in document


def test_ctrl_c_in_a_pass_keeps_the_rounds(benchmark, monkeypatch):
    def interrupts(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(more, "cold_start", interrupts)
    assert benchmark("--precision", "fp32", "--cold-starts", "1", "--micro") == 130
    document = read_document(benchmark.output / "results.json")
    assert document["timing"]["interrupted"] and document["timing"]["rounds"] == 3 and "micro" not in document
    assert any("interrupted in: cold starts" in line for line in document["warnings"])


def test_an_engine_of_another_precision_is_refused(benchmark, two_precisions, tiny_graph, capsys):
    bundle = open_bundle(two_precisions)
    bundle.add_file("model.int8.onnx", tiny_graph)  # FP32
    bundle.save()
    assert benchmark() == 0
    assert "refused to time int8: it was not built in int8: its matrix products run in" in capsys.readouterr().err
    assert {t["precision"] for t in read_document(benchmark.output / "results.json")["targets"] if t["samples_ms"]} == {
        None,
        "fp32",
    }


def test_its_own_results_compare(benchmark, capsys):
    assert benchmark("--precision", "fp32", "--rounds", "12") == 0
    results = str(benchmark.output / "results.json")
    assert command.main(["--compare", results, results]) == 0
    out = capsys.readouterr().out
    assert "fp32 parser, a frame" in out and json.loads(out.splitlines()[-1])["verdicts"] == {"cannot tell": 12}


def test_parse_summary_and_overlay_reach_the_report(benchmark, make_clip, tmp_path):
    summary = tmp_path / "parse.json"
    summary.write_text(json.dumps({"frames": 6, "people": 12, "stages_ms": {"decode": {"p50": 1, "n": 6}}}))
    overlay = make_clip(8, "parsed.avi")
    assert benchmark("--parse-summary", str(summary), "--overlay", str(overlay), clip=make_clip()) == 0
    page = (benchmark.output / "report.html").read_text()
    assert "6 frames, 2.00 people " in page
    assert [n for n in range(8) if f"frame {n} of parsed.avi" in page] == [1, 3, 5, 7]
    assert read_document(benchmark.output / "results.json")["parse"]["frames"] == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--precision", "fp12"], "unknown precision"),
        (["--precision", "bf16"], "has no bf16 graph.*qanet build"),
        (["--precision", "fp16"], "has no fp16 graph.*qanet build"),
        (["--precision", ","], "no precision to measure"),
        (["--frames", "0"], "bad --frames"),
        (["--rounds", "0"], "bad --rounds"),
        (["--duration", "0"], "bad --duration"),
        (["--duration", "nan"], "bad --duration"),
        (["--input", "nowhere.mp4"], "nowhere.mp4: no such file"),
        (["--input", ""], "no input to measure on.*--input VIDEO"),
        (["--overlay", "nowhere.webm"], "no overlay video"),
        (["--parse-summary", "nowhere.json"], "cannot be read as JSON"),
        (["--whole-image"], "not allowed with"),
        (["--tail", "other"], "unknown tail"),
        (["--device", "tpu"], "unknown device"),
        (["--cold-starts", "-1"], "bad --cold-starts"),
        (["--energy-seconds", "nan"], "bad --energy-seconds"),
        (["--images", "0"], "bad --images"),
        (["--data", "nowhere"], "nowhere"),
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
