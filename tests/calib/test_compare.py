"""The comparison with other tools: on a small network, with a metric that counts labels."""

import json

import numpy as np
import pytest

from qanet.benchmarks.lab import int8_tools as compare
from qanet.bundle import create
from qanet.errors import QanetError

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")


class _Crops(list):
    """What people_crops gives: batches, and how many crops are expected."""

    expected = 12


def test_every_tool_is_measured_on_the_same_network(small_model, crops, tmp_path, monkeypatch, capsys):
    pytest.importorskip("openvino")
    bundle = create(tmp_path / "small.qanet", labels="ccp13", input_hw=[16, 12], graphs={"fp32": "model.onnx"})
    bundle.add_file("model.onnx", small_model)
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(small_model)
    bundle.save()
    feed = {"crops": crops, "box_scores": np.ones(12, np.float32)}

    def labels(graph):
        return ort.InferenceSession(graph, providers=["CPUExecutionProvider"]).run(["labels"], feed)[0]

    def measure(graph, precision):
        equal = 100 * float((labels(graph) == labels(small_model)).mean())
        return dict.fromkeys(("miou", "pixel_accuracy", "rank_correlation"), equal)

    kept = tmp_path / "kept"
    monkeypatch.setattr(compare, "open_accuracy", lambda *_: (measure, "digest"))
    monkeypatch.setattr(compare, "people_crops", lambda *_: _Crops([crops]))
    arguments = [str(bundle.path), "--data", "x", "--rounds", "2", "--threads", "1", "--json"]
    assert compare.main([*arguments, "--keep", str(kept), "--graph", f"copy={copy}"]) == 0
    lines = {line["graph"]: line for line in json.loads(capsys.readouterr().out)}
    assert len(lines) == 7 and lines["FP32"]["miou"] == lines["copy"]["miou"] == 100
    ours, theirs = lines["qanet, minmax"], lines["quantize_static, minmax"]
    assert 90 < ours["miou"] <= 100 and ours["qdq_nodes"] < theirs["qdq_nodes"]
    assert all(line["latency_ms"] > 0 for line in lines.values())
    if ours["tensorrt_rtx"] != "not installed":
        assert ours["tensorrt_rtx"] == "builds"
        assert theirs["tensorrt_rtx"].startswith(("refused", "fails"))  # its int32 biases

    assert {file.name for file in kept.iterdir()} == {
        "qanet-entropy.onnx",
        "qanet-minmax.onnx",
        "quantize_static-minmax.onnx",
        "quantize_static-minmax-Conv.onnx",
    }
    times_alone = [str(bundle.path), "--crops", "0", "--images", "0", "--rounds", "2", "--threads", "1"]
    assert compare.main([*times_alone, "--graph", f"ours={kept / 'qanet-minmax.onnx'}"]) == 0
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [row.split("  ")[0] for row in rows] == ["FP32", "FP32, run in BF16", "ours"] and "  -  " in rows[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no --data"),
        (["--crops", "0"], "no --data"),
        (["--crops", "-1"], "bad --crops"),
        (["--images", "-1"], "bad --images"),
        (["--rounds", "0"], "bad --rounds"),
    ],
)
def test_mistakes_are_errors(arguments, message):
    with pytest.raises(QanetError, match=message):
        compare.main(["nowhere.qanet", *arguments])


@pytest.mark.parametrize("text", ["name", "name=absent.onnx", "=", "name="])
def test_a_graph_that_is_none(text):
    with pytest.raises(QanetError, match="bad --graph"):
        compare._other(text)
