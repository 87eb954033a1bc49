"""`qanet calibrate` on a small bundle: what it writes, adopts and searches; bad input leaves the bundle as it was."""

import json

import cv2
import numpy as np
import pytest

from qanet.__main__ import main as qanet
from qanet.bundle import create, open_bundle
from qanet.calib import command
from qanet.calib.bundle import add_quantised_graph, calibrate, write_scales
from qanet.calib.scales import load_scales
from qanet.errors import QanetError

pytest.importorskip("onnxruntime")


@pytest.fixture
def bundle(tmp_path, small_model):
    made = create(tmp_path / "small.qanet", labels="ccp13", input_hw=[16, 12], graphs={"fp32": "model.onnx"})
    made.add_file("model.onnx", small_model)
    made.save()
    return made.path


@pytest.fixture
def people(tmp_path):
    """Writes a folder in CCP's layout: (number of images, all black?) -> its path."""

    def write(count, black=False):
        root = tmp_path / f"data-{count}-{black}"
        for name in ("photos", "labels"):
            (root / name).mkdir(parents=True)
        random = np.random.default_rng(0)
        for number in range(count):
            image = random.integers(0, 1 if black else 256, (8, 6, 3), np.uint8).repeat(8, 0).repeat(8, 1)
            labels = np.zeros((64, 48), np.uint8)
            labels[8:56, 8:40] = 31
            cv2.imwrite(str(root / "photos" / f"{number}.png"), image)
            cv2.imwrite(str(root / "labels" / f"{number}.png"), labels)
        return root

    return write


def _files(path):
    return {file.name: file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_the_second_run_comes_from_the_cache_and_gives_the_same_bytes(bundle, people, capsys):
    data = str(people(4))
    assert qanet(["calibrate", str(bundle), "--data", data, "--json"]) == 0
    first = _files(bundle)
    assert {"scales.json", "model.int8.onnx"} <= first.keys()
    assert "cached" not in capsys.readouterr().err
    assert qanet(["calibrate", str(bundle), "--data", data, "--json"]) == 0
    captured = capsys.readouterr()
    assert "cached from an earlier run" in captured.err and json.loads(captured.out)["crops"] == 4
    assert _files(bundle) == first


def test_calibration_without_a_command_line(bundle, people):
    opened, before, seen = open_bundle(bundle), _files(bundle), []
    data = people(4)
    found = calibrate(opened, data, method="minmax", crops=3, progress=lambda *done: seen.append(done))
    assert (found.scales.method, found.scales.crops, found.is_cached) == ("minmax", 3, False)
    assert seen == [(1, 3), (2, 3), (3, 3)] and _files(bundle) == before
    assert calibrate(opened, str(data), method="mse", crops=3).is_cached
    write_scales(opened, found.scales)
    assert open_bundle(bundle).graph("int8") and load_scales(bundle / "scales.json") == found.scales


@pytest.mark.parametrize(
    ("count", "black", "message"),
    [(0, False, "error"), (1, False, "too few crops"), (3, True, "all 3 crops are black")],
)
def test_a_folder_that_cannot_calibrate_leaves_the_bundle(bundle, people, count, black, message, capsys):
    before = _files(bundle)
    assert qanet(["calibrate", str(bundle), "--data", str(people(count, black))]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and "Traceback" not in error
    assert _files(bundle) == before


def test_a_truncated_graph_leaves_the_bundle(bundle, people, capsys):
    path = bundle / "model.onnx"
    damaged = open_bundle(bundle)
    damaged.add_file("model.onnx", path.read_bytes()[:2000])
    damaged.save()
    before = _files(bundle)
    assert qanet(["calibrate", str(bundle), "--data", str(people(3))]) == 2
    assert "broken ONNX file" in capsys.readouterr().err
    assert _files(bundle) == before


def test_scales_of_another_calibration_are_adopted_or_refused(bundle, people, small_graph, tmp_path, capsys):
    assert qanet(["calibrate", str(bundle), "--data", str(people(3)), "--method", "minmax"]) == 0
    other = create(tmp_path / "tuned.qanet", labels="ccp13", input_hw=[16, 12], graphs={"fp32": "model.onnx"})
    other.add_file("model.onnx", small_graph(16, 12, seed=7).SerializeToString())  # the same names, other weights
    other.save()
    assert qanet(["calibrate", str(other.path), "--scales", str(bundle / "scales.json")]) == 0
    ours, theirs = (load_scales(path / "scales.json") for path in (bundle, other.path))
    assert ours.ranges == theirs.ranges and ours.model_sha256 != theirs.model_sha256
    assert open_bundle(other.path).graph("int8") != open_bundle(bundle).graph("int8")
    document = json.loads((bundle / "scales.json").read_text())
    document["tensors"]["nowhere"] = {"amax": 1.0}
    (tmp_path / "foreign.json").write_text(json.dumps(document))
    before = _files(other.path)
    capsys.readouterr()
    assert qanet(["calibrate", str(other.path), "--scales", str(tmp_path / "foreign.json")]) == 2
    assert "'nowhere' is not in the graph" in capsys.readouterr().err
    assert _files(other.path) == before


@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_the_graph_of_each_narrow_type(bundle, people, precision):
    with pytest.raises(QanetError, match="no scales.json"):
        add_quantised_graph(open_bundle(bundle), precision)
    assert qanet(["calibrate", str(bundle), "--data", str(people(3))]) == 0
    opened = open_bundle(bundle)
    add_quantised_graph(opened, precision)
    assert opened.manifest["graphs"][precision] == f"model.{precision}.onnx"
    assert f"weight.{precision}".encode() in opened.graph(precision)


def test_the_search_through_the_command(bundle, people, capsys, monkeypatch):
    pytest.importorskip("openvino")
    asked = []

    def measure(graph, precision):
        asked.append(precision)
        return dict.fromkeys(("miou", "ap_r", "rank_correlation"), 50.0)

    monkeypatch.setattr(command, "open_accuracy", lambda *_: (measure, "digest"))
    try:
        code = command.main(
            [str(bundle), "--data", str(people(3)), "--budget", "0.5", "--images", "2", "--threads", "1", "--json"]
        )
    except QanetError as error:  # where INT8 makes none of these few pixels faster
        assert "no block" in error.line()
        return
    assert code == 0
    found = json.loads(capsys.readouterr().out)["search"]
    assert {block["name"] for block in found["blocks"]} == {"stem", "deep", "project", "down", "mix", "logits"}
    assert {"precision-search.html", "precision-search.json"} <= _files(bundle).keys()
    assert asked.count("fp32") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no data given"),
        (["--data", "x", "--crops", "1"], "bad --crops"),
        (["--scales", "x", "--budget", "1"], "no data given"),
        (["--data", "x", "--budget", "-1"], "bad --budget"),
        (["--data", "x", "--metric", "speed"], "invalid choice"),
    ],
)
def test_bad_arguments(bundle, arguments, message, capsys):
    assert qanet(["calibrate", str(bundle), *arguments]) == 2
    assert message in capsys.readouterr().err
