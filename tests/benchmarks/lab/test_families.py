"""The table of families: on a tiny network at two precisions, what is refused, and Ctrl-C."""

import json

import pytest

from qanet.benchmarks import check
from qanet.benchmarks.lab import families as module
from qanet.benchmarks.lab.families import main, markdown
from qanet.bundle import open_bundle
from qanet.errors import QanetError

pytest.importorskip("openvino", reason="the tiny bundle's engines run on OpenVINO")


@pytest.fixture
def families(tiny_bundle, tiny_graph, make_clip, boxes_file, monkeypatch, tmp_path):
    """Runs the command on the tiny bundle, whose INT8 graph is its FP32 graph; exit code and figures."""
    bundle = open_bundle(tiny_bundle)
    bundle.add_file("model.int8.onnx", tiny_graph)
    bundle.manifest["graphs"]["int8"] = "model.int8.onnx"
    bundle.manifest["accuracy"] = {"fp32": {"miou": 0.5, "data": "ccp", "images": 3}}
    bundle.save()
    monkeypatch.setattr(check, "precision_refusal", lambda precision, execution: None)

    def run(*extra, models=(str(tiny_bundle),)):
        arguments = [*models, "--input", str(make_clip()), "--boxes", str(boxes_file), "--precisions", "fp32,int8"]
        arguments += ["--network-seconds", "0.02", "--frame-seconds", "0.02", "--threads", "1", "--frames", "2"]
        code = main([*arguments, "--output", str(tmp_path / "families.json"), *extra])
        return code, json.loads((tmp_path / "families.json").read_text())

    return run


def rows_of(text):
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(header, row)) for row in rows]


def test_a_row_a_precision_with_both_tails(families, capsys):
    code, document = families()
    assert code == 0
    (family,) = document["families"]
    fp32, int8 = family["rows"]
    assert (fp32["precision"], int8["precision"], family["people_per_frame"]) == ("fp32", "int8", 2.0)
    assert set(int8["frame_ms"]) == {"kernel", "graph"} and int8["network_ms"]["n"] >= 1 <= int8["tail_ms"]["n"]
    assert int8["network_speed_up"]["low"] <= int8["network_speed_up"]["value"] <= int8["network_speed_up"]["high"]
    assert (fp32["miou"], int8["miou"]) == (0.5, None) and fp32["engine_bytes"] is None  # nothing was built
    assert family["sessions"]["networks"]["rounds"] == fp32["network_ms"]["n"] and not family["interrupted"]
    first, second = rows_of(capsys.readouterr().out)
    assert (first["mIoU"], first["over FP32 (95%)"], second["mIoU"]) == ("50.00", "1", "-")
    assert float(second["network ms"]) > 0 and float(second["frame ms, graph tail"]) > 0
    assert " to " in second["over FP32 (95%)"] and first["multiply-adds in"] == "fp32 100%"


def test_processor_time_stands_where_the_latency_would(families, monkeypatch, capsys):
    ran, run = [], module.harness.run
    monkeypatch.setattr(module.harness, "run", lambda *a, **k: (ran.append(run(*a, **k)), ran[-1])[1])
    code, document = families("--processor-time")
    engine = next(m for m in ran[0].measurements if m.target.kind == "engine")
    figures = document["families"][0]["rows"][0]["network_ms"]
    assert code == 0 and document["of"] == "processor time"
    assert figures["max"] == pytest.approx(max(engine.cpu_ms), abs=1e-6) and figures["n"] == len(engine.samples_ms)
    assert "medians of processor time" in capsys.readouterr().out


def test_json_on_stdout_is_the_file(families, capsys):
    _, document = families("--json")
    assert json.loads(capsys.readouterr().out) == document and markdown(document).count("| tiny |") == 2


def test_the_pytorch_form_stands_beside_the_frames(families, monkeypatch, capsys):
    monkeypatch.setattr(module, "open_checked", lambda *arguments: (lambda image, boxes, scores: scores, ""))
    code, document = families("--baseline")
    (family,) = document["families"]
    assert code == 0 and family["baseline_ms"]["n"] == family["sessions"]["frames"]["rounds"]
    assert set(family["rows"][1]["over_baseline"]) == {"kernel", "graph"}
    rows = rows_of(capsys.readouterr().out)
    assert rows[-1]["network"] == "tiny, PyTorch" and rows[-1]["network ms"] == "-"
    assert " to " in rows[0]["over PyTorch, kernel tail (95%)"]


def test_a_pytorch_form_that_is_refused_is_told(families, monkeypatch, capsys):
    monkeypatch.setattr(module, "open_checked", lambda *arguments: (None, "its labels differ"))
    code, document = families("--baseline")
    assert code == 0 and document["families"][0]["baseline_ms"] is None
    assert "not timed: tiny in PyTorch: its labels differ" in capsys.readouterr().out


def test_an_engine_that_does_not_run_leaves_the_others(families, tiny_bundle, capsys):
    bundle = open_bundle(tiny_bundle)
    bundle.add_file("model.int8.onnx", b"not a graph")
    bundle.save()
    code, document = families()
    fp32, int8 = document["families"][0]["rows"]
    assert code == 0 and fp32["network_ms"] and int8["network_ms"] is None and int8["frame_ms"]["graph"] is None
    assert "not timed: int8 (graph tail): it does not run" in capsys.readouterr().out


def test_nothing_to_time_is_exit_code_1(families, tiny_bundle):
    bundle = open_bundle(tiny_bundle)
    for file in bundle.manifest["graphs"].values():
        bundle.add_file(file, b"not a graph")
    bundle.save()
    assert families()[0] == 1


def test_ctrl_c_keeps_the_families_before(families, monkeypatch, tiny_bundle, capsys):
    measured, made = module.measure_family, []

    def second_is_interrupted(bundle, samples, plan):
        made.append(bundle)
        if len(made) > 1:
            raise KeyboardInterrupt
        return measured(bundle, samples, plan)

    monkeypatch.setattr(module, "measure_family", second_is_interrupted)
    code, document = families(models=[str(tiny_bundle)] * 3)
    assert code == 130 and len(document["families"]) == 1 and len(made) == 2
    assert len(rows_of(capsys.readouterr().out)) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--precisions", "fp12"], "bad --precisions"),
        (["--precisions", ","], "bad --precisions"),
        (["--tails", "other"], "bad --tails"),
        (["--network-seconds", "0"], "bad --network-seconds"),
        (["--frame-seconds", "inf"], "bad --frame-seconds"),
        (["--frames", "0"], "bad --frames"),
        (["--threads", "0"], "bad --threads"),
        (["--input", "nowhere.mp4"], "nowhere.mp4: no such file"),
        (["--precisions", "bf16"], "has no bf16 graph"),
    ],
)
def test_mistakes_are_errors_with_a_way_out(families, arguments, message):
    with pytest.raises(QanetError, match=message):
        families(*arguments)
