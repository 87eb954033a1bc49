"""The search on networks whose answers are known, then on the small graph with real accuracy and latency."""

import json

import numpy as np
import pytest

from qanet.bundle import create
from qanet.calib.bundle import RECORD, REPORT, search_bundle
from qanet.calib.latency import block_latency_ms, network_latency_ms
from qanet.calib.placement import block_of, blocks_of, load_model, place, present_patterns
from qanet.calib.plot import page
from qanet.calib.scales import find_scales
from qanet.calib.search import BlockCost, Measurements, choose, rows, sensitivities
from qanet.errors import QanetError

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
DROPS = {"a": 0.1, "b": 3.0, "c": 0.0, "d": 1.0, "e": -0.2}
SAVED = {"a": 1.0, "b": 2.0, "c": 0.5, "d": 1.0, "e": -0.1}  # e is slower in INT8


def _additive(in_float):
    """A network whose blocks' drops add up from 60."""
    value = 60 - sum(drop for block, drop in DROPS.items() if block not in in_float)
    return {"miou": value, "ap_r": 2 * value, "rank_correlation": 50.0}


def _costs(accuracy=_additive):
    drops = sensitivities(list(DROPS), accuracy, "miou")
    return [BlockCost(name, drops[name], 3.0, 3.0 - SAVED[name]) for name in DROPS]


def test_sensitivity_is_the_drop_of_each_block_alone():
    seen = []
    assert sensitivities(list(DROPS), _additive, "miou", seen.append) == pytest.approx(DROPS)
    assert seen == list(DROPS)
    assert sensitivities(list(DROPS), _additive, "ap_r")["b"] == pytest.approx(6)


@pytest.mark.parametrize(
    ("budget", "in_float"), [(4.2, ("e",)), (1.2, ("b", "e")), (0.2, ("b", "d", "e")), (0.0, ("a", "b", "d", "e"))]
)
def test_the_fewest_blocks_within_the_budget(budget, in_float):
    found = choose(_costs(), _additive, _additive(DROPS), "miou", budget)
    assert found.in_float == in_float
    assert found.fp32["miou"] - found.chosen["miou"] <= budget + 1e-9
    assert {c.name for c in found.blocks if c.in_float} == set(in_float)
    assert found.all_int8["miou"] == pytest.approx(56.1)


def test_what_counts_is_the_whole_network_not_the_sum():
    def compounding(in_float):
        value = _additive(in_float)
        return value | {"miou": value["miou"] - (2 if not {"a", "d"} & set(in_float) else 0)}

    assert choose(_costs(), compounding, compounding(DROPS), "miou", 1.2).in_float == ("b", "d", "e")


def test_no_choice_within_the_budget_names_the_way_out():
    def hopeless(in_float):
        return {"miou": 60.0 if len(in_float) == len(DROPS) else 1.0}

    with pytest.raises(QanetError, match="qanet qat"):
        choose(_costs(hopeless), hopeless, {"miou": 60.0}, "miou", 1.0)
    slow = [BlockCost(name, 0.0, 1.0, 1.0) for name in DROPS]
    with pytest.raises(QanetError, match="no block that INT8 makes faster"):
        choose(slow, _additive, _additive(DROPS), "miou", 9.0)


def test_a_measurement_is_made_once_and_kept(tmp_path):
    asked = []

    def measure(in_float):
        asked.append(in_float)
        return _additive(DROPS if in_float is None else in_float)

    path = tmp_path / "measured.json"
    accuracy = Measurements(path, list(DROPS), measure)
    assert accuracy(["b", "a"]) == accuracy(["a", "b"]) == _additive(("a", "b"))
    assert accuracy.fp32() == accuracy.fp32() == accuracy(list(DROPS))
    assert asked == [("a", "b"), None, tuple(DROPS)]
    again = Measurements(path, list(DROPS), measure)
    assert again(["a", "b"]) == _additive(("a", "b")) and again.measured == 0
    path.write_text("{")
    assert Measurements(path, list(DROPS), measure)([]) == _additive(())


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("backbone.blocks.3.expand.relu6", "backbone.blocks.3"),
        ("backbone.stem.relu6", "backbone.stem"),
        ("backbone.layer2.0.conv1", "backbone.layer2.0"),
        ("neck.levels.2.1.conv", "neck.levels.2"),
        ("backbone.stage4.0.fuse_layers.0.3.up", "backbone.stage4.0"),
        ("logits", "logits"),
        ("iou_head.reduce", "iou_head.reduce"),
    ],
)
def test_blocks_by_name(name, block):
    assert block_of(name) == block


def test_patterns_keep_whole_blocks_and_match_something(small_model):
    model = load_model(small_model)
    assert blocks_of(model) == ("stem", "deep", "project", "down", "mix", "logits")
    assert present_patterns(model, ["stem", "logits"]) == ("stem", "stem.*", "logits")
    kept = place(model, present_patterns(model, ["stem", "mix"]))
    assert [model.graph.node[i].name for i in kept.convolutions] == ["deep", "project", "down", "logits"]


def test_milliseconds_of_blocks_add_up_to_about_the_network(small_graph):
    pytest.importorskip("openvino")
    data = small_graph(96, 72).SerializeToString()
    blocks = ("stem", "deep", "project", "down", "mix", "logits")
    by_graph = block_latency_ms({"one": (data, "fp32")}, blocks, (96, 72), rounds=5, threads=1)
    by_block = by_graph["one"]
    whole = network_latency_ms({"one": (data, "fp32"), "two": (data, "fp32")}, (96, 72), rounds=5, threads=1)
    assert tuple(by_block) == blocks and all(value >= 0 for value in by_block.values())
    assert by_block["stem"] + by_block["mix"] > 0
    assert set(whole) == {"one", "two"} and all(0 < value < 1000 for value in whole.values())
    with pytest.raises(QanetError, match="cannot compile"):
        network_latency_ms({"broken": (data[:500], "fp32")}, (96, 72))


def test_the_page_is_whole_and_loads_nothing():
    found = choose(_costs(), _additive, _additive(DROPS), "miou", 0.2)
    text = page(found, "a & b")
    assert text.startswith("<!doctype html>") and "a &amp; b" in text
    assert text.count("<rect") == 2 * len(DROPS) and "://" not in text.replace("http://www.w3.org/2000/svg", "")
    assert all(f">{name}</text>" in text for name in DROPS)
    assert [row[-1] for row in rows(found)] == ["INT8", "float", "INT8", "float", "float"]


def test_a_bundle_is_searched_and_its_report_written(small_model, small_graph, crops, tmp_path):
    pytest.importorskip("openvino")
    bundle = create(tmp_path / "small.qanet", labels="ccp13", input_hw=[16, 12], graphs={"fp32": "model.onnx"})
    bundle.add_file("model.onnx", small_model)
    scales, _ = find_scales(small_model, [crops], "minmax", keep=())
    feed = {"crops": crops, "box_scores": np.ones(len(crops), np.float32)}
    reference = ort.InferenceSession(small_model, providers=["CPUExecutionProvider"]).run(["logits"], feed)
    measured = []

    def agreement(graph, precision):
        """Minus the error of the logits, in per cent: a metric that INT8 surely lowers."""
        measured.append(precision)
        logits = ort.InferenceSession(graph, providers=["CPUExecutionProvider"]).run(["logits"], feed)[0]
        value = 100 - 100 * float(np.sqrt(((logits - reference[0]) ** 2).mean() / (reference[0] ** 2).mean()))
        return {"miou": value, "ap_r": value, "rank_correlation": float("nan")}

    budgets = {}
    for budget in (50.0, 0.5):
        try:
            budgets[budget] = search_bundle(bundle, scales, agreement, "digest", "miou", budget, threads=1)
        except QanetError as error:  # on a machine where INT8 makes none of these few pixels faster
            assert "no choice" in error.line()
    for budget, (changed, found) in budgets.items():
        assert found.fp32["miou"] - found.chosen["miou"] <= budget
        assert set(changed.keep) >= set(found.in_float)
        changed.check_complete(load_model(small_model))
        assert json.loads(bundle.read(RECORD))["metric"] == "miou" and b"<svg" in bundle.read(REPORT)
    assert (
        measured.count("fp32") == measured.count("bf16") == 1 and len(measured) <= 20
    )  # sensitivities are measured once
    with pytest.raises(QanetError, match="undefined on these images"):
        search_bundle(bundle, scales, agreement, "digest", "rank_correlation", 1.0)
    with pytest.raises(QanetError, match="unknown metric"):
        search_bundle(bundle, scales, agreement, "digest", "speed", 1.0)
